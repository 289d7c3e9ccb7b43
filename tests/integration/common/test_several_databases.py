"""A URL with several hosts: the one that accepts writes is found, also when it is another one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from deploy.provision import DATABASE, provision_postgres
from deploy.up.servers import Postgres
from libs.common.database import inspection, migrate, postgres, schema_version
from tests.support.databases import PASSWORDS, SERVICES, DatabaseUrl
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.replicas import Pair, ask, black_hole, running_pair

HOSTS = 3
WITHIN = HOSTS * postgres.HOST_SECONDS


@pytest.fixture
def pair(tmp_path: Path, ports: Ports, private_folder: Path) -> Iterator[Pair]:
    with running_pair(private_folder / tmp_path.name, ports.take) as started:
        yield started


@pytest.fixture
def hole(pair: Pair) -> Iterator[str]:
    with black_hole() as address:
        pair.first = [address]
        yield address


def fresh(pair: Pair) -> DatabaseUrl:
    url = pair.create("alerts", migrated=False)
    ask(url.superuser_url, "SET ROLE alerts_owner; CREATE TABLE alerts.mark (n int)")
    return url


@asynccontextmanager
async def writing(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    async with postgres.connect(url, application_name="test", **options) as engine:
        yield engine


async def server_port(engine: AsyncEngine) -> int:
    """Write, and return which server has written it."""
    async with engine.begin() as tx:
        await tx.execute(text("INSERT INTO mark VALUES (1)"))
        return int((await tx.execute(text("SELECT inet_server_port()"))).scalar_one())


async def writes_on(engine: AsyncEngine, server: Postgres) -> None:
    async def moved() -> bool:
        try:
            return await server_port(engine) == server.port
        except DBAPIError:
            return False

    await eventually(moved, postgres.STATEMENT_SECONDS + postgres.GRACE_SECONDS + WITHIN)


async def test_the_host_that_accepts_writes_is_found_and_remembered(pair: Pair, hole: str) -> None:
    """Behind one that drops packets, one that answers nothing, and a standby."""
    accepted = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, HOST, 0)
    async with server:
        mute = f"{HOST}:{server.sockets[0].getsockname()[1]}"
        database = fresh(pair)
        pair.first = [hole, mute]
        async with writing(database.of("alerts"), pool_size=3) as engine:
            async with asyncio.timeout(WITHIN):
                assert await server_port(engine) == pair.server.port
            before = accepted
            async with engine.connect(), engine.connect(), engine.connect() as third:
                await third.execute(text("SELECT 1"))
            assert accepted == before == 1


async def test_a_server_that_became_read_only_is_left(pair: Pair) -> None:
    """As a primary that was demoted, or whose disk is full at a provider."""
    url = fresh(pair)
    async with writing(url) as engine:
        assert await server_port(engine) == pair.server.port
        await demoted(pair)
        await writes_on(engine, pair.standby)


async def demoted(pair: Pair) -> None:
    await pair.in_step()
    pair.confirm_by("")  # the standby will no longer follow
    pair.ask("ALTER SYSTEM SET default_transaction_read_only = on")
    pair.ask("SELECT pg_reload_conf()")
    pair.promote()


async def test_migrations_run_on_the_primary(pair: Pair, hole: str) -> None:
    assert hole
    url = pair.create("alerts", migrated=False)
    migrations = SERVICES / "alerts" / "migrations"
    await asyncio.to_thread(migrate.upgrade, "alerts", url.owner_url, migrations)
    found = await asyncio.to_thread(schema_version.version, url, migrations)
    assert found is schema_version.Version.CURRENT


async def test_commits_that_wait_for_a_standby_leave_connections_to_other_roles(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt leaves a connection on the server until a standby confirms its commit."""
    url = fresh(pair)
    limit = pair.ask("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'alerts'")
    pair.ask("ALTER ROLE alerts CONNECTION LIMIT 3")
    assert 0 < limit < int(pair.ask("SHOW max_connections")) / 2
    pair.confirm_by("ANY 1 (nobody)")
    monkeypatch.setattr(postgres, "GRACE_SECONDS", 0.0)
    async with writing(url, statement_timeout=0.5) as engine:

        async def refused() -> bool:
            with pytest.raises(DBAPIError) as failed:
                await server_port(engine)
            assert postgres.is_transient(failed.value)
            return "too many connections for role" in str(failed.value)

        await eventually(refused)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        assert pair.ask(waiting) == 3
        other = psycopg2.connect(url.of("consent").replace("+aiopg", ""))
        other.close()
        pair.confirm_by("")
        await writes_on(engine, pair.server)


def test_the_doctor_s_look_is_at_each_host(pair: Pair) -> None:
    provision_postgres(pair.server.dsn, PASSWORDS)
    migrations = SERVICES / "alerts" / "migrations"
    migrate.upgrade("alerts", pair.account_url("alerts_owner", DATABASE, "x"), migrations)

    def found(*ports: int) -> list[str]:
        hosts = ",".join(f"{HOST}:{port}" for port in ports)
        url = f"postgresql+aiopg://alerts:{PASSWORDS['alerts']}@{hosts}/{DATABASE}"
        checked = inspection.findings(url, "alerts", migrations)
        return [each["found"] for each in checked if each["status"] == "wrong"]

    assert found(pair.standby.port, pair.server.port) == []
    (lost,) = found(1, pair.server.port)
    assert f"as alerts at {HOST}:1: " in lost
    assert found(pair.standby.port) == ["each host is a standby: nothing can be written"]
