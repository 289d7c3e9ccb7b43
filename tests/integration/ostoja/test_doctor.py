"""`ostoja doctor` on the whole system: healthy, then with each part broken once."""

import asyncio
import re
import time
import tomllib
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import aiohttp
import pytest

from deploy.inspection import rabbitmq
from deploy.inspection.__main__ import findings
from deploy.up import environment
from deploy.up.servers import RABBITMQ_PORTS, RabbitMQ, manage
from libs.common.database import inspection
from ostoja import where
from ostoja.commands.deployment import of_services
from tests.support.brokers import rabbitmqctl
from tests.support.checkouts import MadeUp, made_up
from tests.support.cli import Done, fits, ostoja
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports

RIGHTS = tomllib.loads(Path(__file__).with_name("rights.toml").read_text(encoding="utf-8"))["right"]


@pytest.fixture(scope="module")
def checkout(private_folder: Path, ports: Ports) -> Iterator[MadeUp]:
    folder = private_folder / f"doctor-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    with made_up(folder, ports) as made:
        (folder / ".env").chmod(0o600)  # rewritten by the fixture
        yield made


class Broker:
    """RabbitMQ's management API, as its admin."""

    def __init__(self, checkout: MadeUp) -> None:
        url = f"http://{HOST}:{checkout.values['RABBITMQ_UI_PORT']}"
        self._manage = partial(manage, url, ("admin", checkout.values["RABBITMQ_ADMIN_PASSWORD"]))

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(self._manage, method, path, body)

    @asynccontextmanager
    async def there(self, path: str, body: Any) -> AsyncIterator[None]:
        await self.call("PUT", path, body)
        try:
            yield
        finally:
            await self.call("DELETE", path)


@pytest.fixture
def broker(checkout: MadeUp) -> Broker:
    return Broker(checkout)


async def doctor(checkout: MadeUp, *words: str, **settings: str) -> Done:
    return await ostoja("doctor", *words, folder=checkout.folder, settings=settings)


async def found(checkout: MadeUp, **settings: str) -> list[dict[str, str]]:
    """Give what is called wrong; in this process, because two new ones import for seconds.

    :param settings: of the shell, instead of what .env says
    """
    env_file = checkout.folder / ".env"

    def look() -> list[Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(checkout.folder)
            for name, value in settings.items():
                patch.setenv(name, value)
            url, key = settings.get("OSTOJA_URL"), settings.get("OSTOJA_KEY")
            session = where.session(url=url, key=key, operator=None, as_json=True)
            values = environment.load(env_file)
            return [*findings(values, env_file, live=False), *of_services(session)]

    wrong = [each for each in await asyncio.to_thread(look) if each["status"] == "wrong"]
    assert all(each["do"] for each in wrong)
    return wrong


async def until_found(checkout: MadeUp, part: str, said: str) -> dict[str, str]:
    async def there() -> dict[str, str] | None:
        wrong = [each for each in await found(checkout) if each["part"] == part]
        return next((each for each in wrong if said in each["found"]), None)

    return await eventually(there, 60)  # a frozen service holds up each answer


async def until_sound(checkout: MadeUp) -> None:
    await eventually(lambda: found(checkout), 60, so=lambda answer: not answer)


async def test_a_healthy_system_has_no_problems_and_the_table_fits(checkout: MadeUp) -> None:
    await until_sound(checkout)

    done = await doctor(checkout)

    assert done.code == 0, done
    assert fits(done.out)
    for part in (
        "gateway",
        "alerts",
        "trail",
        "migrations",
        "queues",
        "policies",
        "Redis",
        "clock",
    ):
        assert f"\n{part}" in done.out


async def test_no_secret_is_shown(checkout: MadeUp) -> None:
    done = await doctor(
        checkout,
        "--json",
        RABBITMQ_UI_PORT="1",
        SERVICE_API_KEY="1",
        OSTOJA_URL="http://127.0.0.1:1",
    )

    secrets = {
        value
        for name, value in checkout.values.items()
        if name.endswith(("_KEY", "_KEYS", "_PASSWORD"))
    }
    assert done.code == 1
    assert not any(value in done.out + done.err for value in secrets if len(value) > 8)


# Each thing is broken, named as it must be found, and mended.


@pytest.mark.parametrize(
    ("part", "said", "settings"),
    [
        ("keys", "ADMIN_API_KEY and SERVICE_API_KEY", {"SERVICE_API_KEY": "admin"}),
        (
            "rights",
            "followups differs in password",
            {"FOLLOWUPS_AMQP_PASSWORD": "another-password"},
        ),
        ("RabbitMQ", "HTTP status 401", {"RABBITMQ_ADMIN_PASSWORD": "another-password"}),
        ("RabbitMQ", "Connection refused", {"RABBITMQ_UI_PORT": "1"}),
        ("queues", "cannot be checked", {"ALERTS_CONFIG": "config/none.toml"}),
        (
            "queues",
            "cannot be checked",
            {"ALERTS_CONFIG": str(environment.EXAMPLE_CONFIG / "followups.toml")},
        ),
        ("gateway", "does not accept the admin key", {"OSTOJA_KEY": "another-key-of-somebody"}),
    ],
)
async def test_what_does_not_fit_the_settings_is_reported(
    checkout: MadeUp, part: str, said: str, settings: dict[str, str]
) -> None:
    given = {
        name: checkout.values["ADMIN_API_KEY"] if value == "admin" else value
        for name, value in settings.items()
    }

    wrong = await found(checkout, **given)

    assert any(each["part"] == part and said in each["found"] for each in wrong), wrong


async def test_each_service_logs_in_anew(checkout: MadeUp, broker: Broker) -> None:
    """The connections that it has outlive a changed password."""
    checkout.query("ALTER ROLE alerts PASSWORD 'another'")
    user = await broker.call("GET", "users/followups")
    changed = {key: user[key] for key in ("password_hash", "hashing_algorithm", "tags")}
    await broker.call("PUT", "users/followups", {"password": "another", "tags": ""})
    try:
        await until_found(checkout, "PostgreSQL", "as alerts: ")
        await until_found(checkout, "RabbitMQ", "as followups: ")
    finally:
        checkout.query(f"ALTER ROLE alerts PASSWORD '{checkout.values['ALERTS_DB_PASSWORD']}'")
        await broker.call("PUT", "users/followups", changed)


async def test_with_the_gateway_away_each_service_is_asked_at_its_own_port(
    checkout: MadeUp,
) -> None:
    checkout.query("ALTER ROLE followups CREATEROLE")
    try:
        wrong = await found(
            checkout, OSTOJA_URL="http://127.0.0.1:1", CONSENT_URL="http://127.0.0.1:1"
        )
    finally:
        checkout.query("ALTER ROLE followups NOCREATEROLE")

    said = {each["part"]: each["found"] for each in wrong}
    assert said.keys() == {"gateway", "consent", "rights"}
    assert "no answer" in said["gateway"]
    assert "no answer" in said["consent"]
    assert "followups is a superuser or may create roles" in said["rights"]


async def test_findings_need_the_admin_key(checkout: MadeUp) -> None:
    url = f"{checkout.url}/api/health/deep?findings=yes"
    async with aiohttp.ClientSession() as session:
        for key in ({}, {"X-API-KEY": checkout.values["SERVICE_API_KEY"]}):
            async with session.get(url, headers=key) as answer:
                assert answer.status == 401


async def test_make_up_and_doctor_report_a_typo_and_stop_nothing(
    checkout: MadeUp,
) -> None:
    before = await checkout.shell("make status")
    path = checkout.config / "alerts.toml"
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace("fail_max", "fail_mx", 1), encoding="utf-8")
    try:
        status, _, output = await checkout.shell("make up")
        (finding,) = await found(checkout)
        _, printed, _ = await checkout.shell("make check || true")
    finally:
        path.write_text(right, encoding="utf-8")

    assert status != 0
    assert "fail_mx: is not known; did you mean fail_max?" in output
    assert (finding["part"], "fail_mx" in finding["found"]) == ("configuration", True)
    assert "every service would start" not in printed
    assert await checkout.shell("make status") == before
    assert await checkout.shell("make check") == (0, ANY, "")


async def test_a_form_that_does_not_open_on_the_site_is_reported(checkout: MadeUp) -> None:
    """As of a forms.toml that names the port of before PORT_OFFSET."""
    path = checkout.config / "forms.toml"
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace('"sandbox"', '"http://127.0.0.1:8090"'), encoding="utf-8")
    try:
        old, site = await found(checkout)
    finally:
        path.write_text(right, encoding="utf-8")
    assert (old["part"], site["part"]) == ("forms", "forms")
    assert "contact does not open on http://127.0.0.1:8090" in old["found"]
    assert f"on http://127.0.0.1:{checkout.values['SANDBOX_PORT']}" in site["found"]


async def test_a_hanging_service_is_reported_by_name(checkout: MadeUp) -> None:
    await checkout.freeze("followups")
    try:
        finding = await until_found(checkout, "followups", "no answer")
    finally:
        await checkout.thaw("followups")

    assert "make logs SERVICE=followups" in finding["do"]


async def test_a_target_that_refuses_us_is_named_with_what_to_correct(checkout: MadeUp) -> None:
    await checkout.sandbox.behave("slack", status=401)
    try:
        await checkout.alert("waits", target="slack")
        await eventually(partial(checkout.is_held, "slack", 401), 30)
        shown = (await checkout.http("GET", "/api/breakers", key="admin")).body
        finding = await until_found(checkout, "target slack", "refused us: 401")
    finally:
        await checkout.sandbox.behave("slack", status=200)
    await checkout.http("POST", "/api/breakers/slack/reset", key="admin")
    await until_sound(checkout)
    assert shown["slack"]["open_since"] in finding["found"]
    assert "SLACK_WEBHOOK_URL" in finding["do"]


async def test_a_missing_migration_is_reported(checkout: MadeUp) -> None:
    query = checkout.query
    (there,) = query("SELECT version_num FROM followups.alembic_version")
    query("UPDATE followups.alembic_version SET version_num = '0000'")
    try:
        (finding,) = await found(checkout)
    finally:
        query(f"UPDATE followups.alembic_version SET version_num = '{there.version_num}'")

    assert finding["part"] == "migrations"
    assert "followups" in finding["found"]


@pytest.mark.parametrize("row", RIGHTS, ids=lambda row: row["said"])
async def test_a_role_with_excess_rights_is_reported(checkout: MadeUp, row: dict[str, str]) -> None:
    checkout.query(row["broken"])
    try:
        await until_found(checkout, row["part"], row["said"])
    finally:
        checkout.query(row["mended"])


async def test_a_queue_that_differs_is_reported(checkout: MadeUp, broker: Broker) -> None:
    path = "queues/ostoja/consent.commands"
    await checkout.freeze("consent")  # else it would mend it at once
    try:
        await broker.call("DELETE", path)
        gone = await until_found(checkout, "queues", "consent.commands does not exist")
        body = {"durable": True, "arguments": {"x-queue-type": "quorum"}}
        async with broker.there(path, body):
            other = await until_found(checkout, "queues", "consent.commands differs in")
    finally:
        await checkout.thaw("consent")
        await checkout.restart("consent")

    assert "restart its service, which declares it" in gone["do"]
    assert "x-overflow" in other["found"]
    await until_sound(checkout)


SMALL = {"pattern": "^alerts.slack$", "definition": {"max-length": 10}, "apply-to": "queues"}


@pytest.mark.parametrize(
    ("part", "said", "path", "body"),
    [
        ("policies", "another policy than declared (helpful:", "policies/ostoja/helpful",
         {**SMALL, "priority": 50}),
        ("policies", "alerts.slack has another policy", "operator-policies/ostoja/hard",
         {**SMALL, "priority": 0}),
        ("queues", "alerts.fax belongs to no service and holds 0", "queues/ostoja/alerts.fax",
         {"durable": True}),
        ("rights", "the account guest exists", "users/guest", {"password": "guest", "tags": ""}),
    ],
)  # fmt: skip
async def test_what_is_not_ours_is_reported(
    checkout: MadeUp, broker: Broker, part: str, said: str, path: str, body: Any
) -> None:
    async with broker.there(path, body):
        await until_found(checkout, part, said)


@pytest.mark.parametrize(
    ("part", "said", "path", "change"),
    [
        ("policies", "alerts-slack-retry", "policies/ostoja/alerts-slack-retry",
         {"definition": {"message-ttl": 1}}),
        ("rights", "gateway ostoja differs in configure", "permissions/ostoja/gateway",
         dict.fromkeys(("configure", "write", "read"), ".*")),
    ],
)  # fmt: skip
async def test_what_differs_from_ours_is_reported(
    checkout: MadeUp, broker: Broker, part: str, said: str, path: str, change: dict[str, Any]
) -> None:
    declared = await broker.call("GET", path)
    names = {"pattern", "definition", "apply-to", "priority", "configure", "write", "read"}
    body = {name: value for name, value in declared.items() if name in names}
    await broker.call("PUT", path, body | change)
    try:
        await until_found(checkout, part, said)
    finally:
        await broker.call("PUT", path, body)


async def test_a_broker_that_accepts_no_messages_is_reported(checkout: MadeUp) -> None:
    server = RabbitMQ(
        checkout.folder / ".local" / "rabbitmq",
        {name: environment.port(checkout.values, name) for name in RABBITMQ_PORTS},
        password=checkout.values["RABBITMQ_ADMIN_PASSWORD"],
    )
    await asyncio.to_thread(rabbitmqctl, server, "set_disk_free_limit", "1000000GB")
    try:
        finding = await until_found(checkout, "RabbitMQ", "accepts no messages")
    finally:
        await asyncio.to_thread(rabbitmqctl, server, "set_disk_free_limit", "1MB")

    assert "out of disk" in finding["found"]


async def test_a_clock_that_differs_is_reported(checkout: MadeUp) -> None:
    values = environment.load(checkout.folder / ".env")
    url = environment.database_url(values, "alerts")
    management = f"http://{HOST}:{checkout.values['RABBITMQ_UI_PORT']}"

    def an_hour_on() -> float:
        return time.time() + 3600

    def every() -> list[Any]:
        migrations = environment.ROOT / "services" / "alerts" / "migrations"
        config = checkout.config / "alerts.toml"
        return [
            *inspection.findings(url, "alerts", migrations, an_hour_on),
            *rabbitmq.findings(management, values, None, config, an_hour_on),
        ]

    clocks = [each for each in await asyncio.to_thread(every) if each["part"] == "clock"]
    assert [each["status"] for each in clocks] == ["wrong", "wrong"]
    apart = [re.search(r"(\d+) s behind this machine's", each["found"]) for each in clocks]
    # HTTP dates are in whole seconds, and a request takes some on a busy machine.
    assert all(found and abs(int(found[1]) - 3600) < 60 for found in apart), clocks


async def test_make_send_test_says_where_its_mails_are(checkout: MadeUp) -> None:
    status, output, _ = await checkout.shell("make send-test TO=staff@example.com")

    assert status == 0
    assert checkout.sandbox.mail_url in output
    await eventually(
        lambda: checkout.sandbox.mails("staff@example.com"), so=lambda found: len(found) == 4
    )
