"""What provisioning makes, and what each service's account may then do."""

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aio_pika
import aiormq
import psycopg2
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection
from psycopg2.extensions import make_dsn

from deploy import provision
from deploy.up.environment import EXAMPLE_CONFIG
from deploy.up.process import HOST
from deploy.up.servers import Postgres, RabbitMQ
from tests.conftest import NewDatabase
from tests.support.brokers import PASSWORDS, Vhost
from tests.support.databases import PASSWORDS as ROLE_PASSWORDS
from tests.support.ports import Ports
from tests.support.promql import queues
from tests.support.servers import running


async def test_a_runtime_role_can_change_rows_but_not_the_schema(
    database: NewDatabase,
) -> None:
    url = await database("alerts", migrated=False)
    with psycopg2.connect(url.owner_url) as owner, owner.cursor() as cursor:
        cursor.execute("CREATE TABLE thing (id bigint GENERATED ALWAYS AS IDENTITY, name text)")
    with psycopg2.connect(url.replace("+aiopg", "")) as runtime, runtime.cursor() as cursor:
        cursor.execute("INSERT INTO thing (name) VALUES ('x')")
        cursor.execute("SELECT name FROM alerts.thing")
        assert cursor.fetchall() == [("x",)]
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("CREATE TABLE other ()")


@pytest.mark.parametrize("statement", ["SELECT * FROM consent.t", "CREATE TEMP TABLE t ()"])
async def test_a_service_can_use_only_its_own_schema(database: NewDatabase, statement: str) -> None:
    url = await database("alerts", migrated=False)
    consent_owner = url.owner_url.replace("alerts_owner", "consent_owner")
    with psycopg2.connect(consent_owner) as owner, owner.cursor() as cursor:
        cursor.execute("CREATE TABLE t ()")
    with psycopg2.connect(url.replace("+aiopg", "")) as runtime, runtime.cursor() as cursor:
        cursor.execute("SHOW search_path")
        assert cursor.fetchone() == ("alerts",)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(statement)


def test_three_hosts_may_provision_at_once(postgres: Postgres) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(lambda _: provision.provision_postgres(postgres.dsn, ROLE_PASSWORDS), range(4))
        )


def test_provisioning_twice_changes_nothing(postgres: Postgres, rabbitmq: RabbitMQ) -> None:
    admin = (rabbitmq.admin, rabbitmq.password)
    policies = provision.retry_policies(EXAMPLE_CONFIG / "alerts.toml")
    states = []
    for _ in range(2):
        provision.provision_postgres(postgres.dsn, ROLE_PASSWORDS)
        provision.provision_rabbitmq(rabbitmq.management_url, admin, PASSWORDS, policies)
        vhost = Vhost(rabbitmq, "ostoja")
        states.append([vhost.call("GET", kind) for kind in ("exchanges", "policies")])
    assert states[0] == states[1]


def test_an_account_that_may_make_roles_and_databases_is_enough(
    tmp_path: Path, ports: Ports
) -> None:
    """What going-live.md asks of a server of one's own: a hosted one gives no superuser away."""
    with running(Postgres(tmp_path / "postgres", port=ports.take(), password="secret")) as server:
        hosted = f"postgresql://maker:made@{HOST}:{server.port}/postgres"
        with psycopg2.connect(server.dsn) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE ROLE maker LOGIN CREATEROLE CREATEDB PASSWORD 'made'")
        for _ in range(2):
            provision.provision_postgres(hosted, ROLE_PASSWORDS)
        with psycopg2.connect(make_dsn(server.dsn, dbname=provision.DATABASE)) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT nspname, nspowner::regrole::text FROM pg_namespace")
            assert {(name, f"{name}_owner") for name in provision.SCHEMAS} <= set(cursor.fetchall())


EXCHANGES = [name for name, _ in provision.exchanges()]
# As the picture in docs/architecture.md has it: exchanges of its own, and those of others to which
# it sends, or to which it binds its queues.
OWN = {
    "gateway": "",
    "alerts": "alerts alerts.dlx alerts.events",
    "consent": "consent.commands consent.dlx consent.events",
    "followups": "followups.commands followups.dlx followups.events",
    "console": "console.commands console.dlx",
}
SENDS = {
    "gateway": "alerts console.commands followups.commands",
    "alerts": "consent.commands console.commands replies",
    "consent": "alerts console.commands followups.commands replies",
    "followups": "alerts consent.commands console.commands replies",
    "console": "alerts",
}
HEARS = {
    "gateway": "",
    "alerts": "consent.events followups.events replies",
    "consent": "replies",
    "followups": "alerts.events consent.events replies",
    "console": "",
}


async def send(channel: AbstractChannel, exchange: str) -> None:
    found = await channel.get_exchange(exchange, ensure=False)
    await found.publish(aio_pika.Message(b""), "nowhere", mandatory=False)


async def take(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).get(fail=False)


async def purge(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).purge()


async def define(channel: AbstractChannel, queue: str) -> None:
    await channel.declare_queue(queue, exclusive=True)


Act = Callable[[AbstractChannel, str], Awaitable[object]]


async def may(connection: AbstractConnection, act: Act, name: str) -> bool:
    channel = await connection.channel()  # a refusal closes it
    try:
        await act(channel, name)
    except aiormq.exceptions.ChannelAccessRefused:
        return False
    except aiormq.exceptions.ChannelNotFoundEntity:
        return True  # it was looked for
    await channel.close()
    return True


@pytest.mark.parametrize("service", provision.RIGHTS)
async def test_a_service_has_exactly_the_permissions_of_its_topology(
    vhost: Vhost, service: str
) -> None:
    own = f"{service}.own"

    async def hear(channel: AbstractChannel, exchange: str) -> None:
        await (await channel.get_queue(own, ensure=False)).bind(exchange, "key")

    async with await aio_pika.connect(vhost.url(service)) as connection:
        assert await may(connection, define, own) is bool(OWN[service])
        sends, hears = ({*f"{OWN[service]} {others[service]}".split()} for others in (SENDS, HEARS))
        assert {name for name in EXCHANGES if await may(connection, send, name)} == sends
        assert {name for name in EXCHANGES if await may(connection, hear, name)} == hears
        for name in queues():
            mine = name.startswith(f"{service}.")
            assert await may(connection, take, name) is mine, name
            assert await may(connection, purge, name) is mine, name
        for other in (*provision.RIGHTS.keys() - {service}, f"{service}s"):
            assert not await may(connection, define, f"{other}.own")
        assert not await may(connection, send, "")  # it leads into everybody's queues
