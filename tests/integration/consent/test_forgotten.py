"""Erasure holds: through lost orders, latecomers, a rotated master key, a restored backup."""

import math
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.broker import Message
from libs.common.consume import Ack, Delivery
from libs.common.requests import NoAnswer
from services.consent import commands, erasures
from services.consent.consumers import Consumers
from services.consent.settings import ConsentSettings
from services.consent.store import consents, erasing, people
from services.consent.vault import Vault
from tests.integration.consent.conftest import ENVIRONMENT, grant, key
from tests.integration.consent.test_erasure import consumers, erasure, orders, receipt
from tests.integration.consent.test_http import (
    ADMIN,
    ANNA,
    Client,
    NobodyAnswers,
    entries,
    post,
    serving,
)
from tests.support.databases import DatabaseUrl

__all__ = ["consumers"]  # fixtures

JAN = "jan@example.com"


class Holders(NobodyAnswers):
    """The other services, as far as they tell whose addresses they hold."""

    def __init__(self) -> None:
        self.held: Mapping[str, list[str]] | None = None

    async def ask(self, exchange: str, _: str, __: str, body: Any, **___: Any) -> Any:
        if self.held is None or body["email"] is not None:
            raise NoAnswer
        found = [{"address": each} for each in self.held.get(exchange, [])]
        return {"records": {"addresses": found}, "next": None}


@pytest.fixture
def requester() -> Holders:
    return Holders()


@pytest.fixture
async def client(
    engine: AsyncEngine, vault: Vault, settings: ConsentSettings, requester: Holders
) -> AsyncIterator[Client]:
    async with serving(engine, vault, settings, requester) as opened:
        yield opened


async def scalar(engine: AsyncEngine, statement: str, **values: Any) -> Any:
    async with engine.begin() as tx:
        return await tx.scalar(text(statement), values)


async def erase(client: Client, email: str = ANNA) -> None:
    status, body = await post(client, "/api/consent/erase", {"email": email}, **ADMIN)
    assert (status, body["erasure"]["status"]) == (200, "in_progress")


def agreed(at: datetime) -> Message:
    body = {
        "email": ANNA,
        "purpose": "marketing",
        "wording": "Zgadzam się.",
        "source": "chat",
        "at": at.isoformat(),
    }
    return Message(str(uuid4()), "grant.record", body)


async def test_an_agreement_of_before_the_erasure_makes_nobody_known_again(
    client: Client, engine: AsyncEngine, vault: Vault, consumers: Consumers
) -> None:
    await grant(engine, vault, ANNA)
    before = datetime.now(UTC)
    await erase(client)
    late = agreed(before)
    for _ in range(2):  # it comes again, and is dropped again
        outcome = await consumers.commands(late, Delivery(redelivered=False, death_count=0))
        assert isinstance(outcome, Ack)
    assert await scalar(engine, "SELECT count(*) FROM person WHERE erased_at IS NULL") == 0
    now = datetime.now(UTC) + timedelta(seconds=1)
    await consumers.commands(agreed(now), Delivery(redelivered=False, death_count=0))
    assert [entry["action"] for entry in await entries(client, ANNA)] == ["opt-in"]


async def test_an_order_that_was_lost_comes_again_to_whoever_has_not_reported(
    client: Client, engine: AsyncEngine, vault: Vault, consumers: Consumers
) -> None:
    await erase(client)
    (_, first), _ = await orders(engine)
    await receipt(consumers, first["erasure_id"], "followups")
    await scalar(engine, "DELETE FROM outbox RETURNING 1")

    await erasures.follow_up(engine, vault, 3600)
    assert await orders(engine) == []  # not yet
    await erasures.follow_up(engine, vault, 0)
    ((routing_key, order),) = await orders(engine)
    assert routing_key == "person.erased.alerts"
    assert (order["email"], order["erasure_id"]) == (ANNA, first["erasure_id"])


async def test_the_address_of_an_order_is_sealed_and_gone_with_the_last_receipt(
    client: Client, engine: AsyncEngine, consumers: Consumers
) -> None:
    await erase(client)
    sealed = "SELECT encode(sealed_address, 'escape') FROM erasure"
    assert "anna" not in await scalar(engine, sealed)
    (_, order), _ = await orders(engine)
    for service in ("alerts", "followups"):
        await receipt(consumers, order["erasure_id"], service)
    assert await scalar(engine, sealed) is None


async def test_an_erasure_s_month_is_counted_from_its_request(
    client: Client, engine: AsyncEngine, vault: Vault, consumers: Consumers
) -> None:
    async with engine.begin() as tx:
        assert await erasing.open_erasures(tx) == (0, math.inf)
    await erase(client)
    requested = "UPDATE erasure SET requested_at = now() - interval '25 days' RETURNING 1"
    await scalar(engine, requested)
    async with engine.begin() as tx:
        count, days = await erasing.open_erasures(tx)
    assert count == 1
    assert 2 < days < 7
    found = await erasure(client)
    month = datetime.fromisoformat(found["due_at"]) - datetime.fromisoformat(found["requested_at"])
    assert timedelta(days=28) <= month <= timedelta(days=31)


async def test_a_request_that_nobody_confirmed_does_not_start_the_clock_of_a_later_one(
    client: Client, engine: AsyncEngine
) -> None:
    for days, is_new in ((3, False), (8, True)):
        await post(client, "/api/revoke-consent", {"email": ANNA})
        aged = f"UPDATE erasure SET requested_at = now() - interval '{days} days' RETURNING 1"
        await scalar(engine, aged)
        await post(client, "/api/revoke-consent", {"email": ANNA})
        age = await scalar(engine, "SELECT now() - requested_at FROM erasure")
        assert (age < timedelta(hours=1)) is is_new


async def test_after_a_rewrap_the_old_master_key_is_needed_no_more(
    client: Client, engine: AsyncEngine, vault: Vault, settings: ConsentSettings,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(commands, "REWRAP_BATCH", 2)
    for number in range(5):
        await grant(engine, vault, f"person{number}@example.com")
    await erase(client, ANNA)

    both = f"m2:{key('n')},{ENVIRONMENT['CONSENT_MASTER_KEYS']}"
    monkeypatch.setenv("CONSENT_MASTER_KEYS", both)
    newer = ConsentSettings()
    assert await commands.rewrap(newer) == 0
    assert await commands.rewrap(newer) == 0  # again: nothing is left to do
    said = [line for line in capsys.readouterr().out.splitlines() if "wrapped anew" in line]
    assert [line.split()[0] for line in said] == ["5", "0"]

    alone = Vault(f"m2:{key('n')}", ENVIRONMENT["CONSENT_HASH_KEY"])
    async with engine.begin() as tx:
        for number in range(5):
            person = await people.find(tx, alone, f"person{number}@example.com")
            assert person is not None
            person.key(alone)
    await erasures.follow_up(engine, alone, 0)
    assert len(await orders(engine)) == 4
    with pytest.raises(KeyError):
        person.key(vault)  # which knows the old one only


class Backup:
    """A backup of consent's schema, by the server's own tools."""

    def __init__(self, url: DatabaseUrl, path: Path) -> None:
        self._url, self._path = url.superuser_url, path

    def take(self) -> None:
        self._run("pg_dump", "--format=custom", "--schema=consent", "--file", str(self._path))

    def restore(self) -> None:
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA consent CASCADE")
            connection.commit()
        self._run("pg_restore", "--exit-on-error", str(self._path))

    def _run(self, program: str, *arguments: str) -> None:
        found = shutil.which(program)
        assert found, f"{program} comes with the server"
        subprocess.run([found, f"--dbname={self._url}", *arguments], check=True, timeout=60)


@pytest.fixture
def backup(consent_database: DatabaseUrl, tmp_path: Path) -> Backup:
    return Backup(consent_database, tmp_path / "backup")


async def test_a_restored_backup_forgets_again_whoever_was_erased_since(
    client: Client, engine: AsyncEngine, vault: Vault, requester: Holders, backup: Backup
) -> None:
    ewa, ola = "ewa@example.com", "ola@example.com"
    for email in (ANNA, ewa):
        await grant(engine, vault, email)
    await erase(client, ewa)  # of before the backup: it knows that
    backup.take()
    await grant(engine, vault, JAN)  # after it, as are these erasures
    for email in (ANNA, JAN, ola):
        await erase(client, email)
    backup.restore()
    assert [entry["action"] for entry in await entries(client, ANNA)] == ["opt-in"]

    async def replay() -> tuple[int, Any]:
        return await post(client, "/api/consent/replay-erasures", {}, **ADMIN)

    status, body = await replay()
    assert (status, body["incomplete"]) == (202, ["alerts", "followups"])
    assert (body["already"], body["again"], body["left"]) == (1, 1, 2)

    requester.held = {"followups.commands": [JAN.upper(), "somebody@example.com", "no address"]}
    status, body = await replay()
    assert status == 200
    assert (body["already"], body["by_address"], body["unknown"]) == (2, 1, 1)
    assert await entries(client, ANNA) == []
    erased_again = {order["email"] for _, order in await orders(engine)}
    assert erased_again == {ANNA, JAN, ewa}
    for email in (ANNA, JAN, ola):
        hashed = vault.suppression_hash(email)
        async with engine.begin() as tx:
            assert await consents.is_suppressed(tx, hashed, "marketing")
            assert await erasing.erased_since(tx, hashed, datetime.now(UTC) - timedelta(minutes=1))
    assert (await erasure(client, JAN))["status"] == "in_progress"

    status, body = await replay()
    assert (status, body["already"], body["again"]) == (200, 4, 0)
