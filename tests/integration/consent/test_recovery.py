"""After a restored backup, no one who withdrew or was erased since gets a message."""

import asyncio
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

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack
from libs.common.messaging.rpc import NoReply
from services.consent import changes, metrics
from services.consent import consumers as module
from services.consent.changes import WithdrawalRequest
from services.consent.recovery import journal as journal_module
from services.consent.recovery import replay as replay_module
from services.consent.recovery.journal import Journal, read
from services.consent.settings import ConsentSettings
from services.consent.store import consents
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.trail import checkpoints
from services.consent.trail.checkpoints import Checkpoint
from tests.integration.consent.conftest import (
    Link,
    grant,
    make_consumers,
    restrictions,
    rows,
    scalar,
    unsubscribe,
    withdraw,
)
from tests.integration.consent.test_erasure import erasure, orders
from tests.integration.consent.test_erasure_orders import erase
from tests.integration.consent.test_http import (
    ADMIN,
    ANNA,
    Client,
    NoAnswers,
    entries,
    post,
    seen,
    serving,
)
from tests.support.contracts import golden
from tests.support.databases import DatabaseUrl

pytestmark = pytest.mark.promise("P4")

JAN, EWA, OLA = "jan@example.com", "ewa@example.com", "ola@example.com"


class Holders(NoAnswers):
    """The other services, as far as they send the addresses that they hold."""

    def __init__(self) -> None:
        self.held: Mapping[str, list[str]] | None = None

    async def ask(self, exchange: str, _: str, __: str, body: Any, **___: Any) -> Any:
        if self.held is None or body["email"] is not None:
            raise NoReply
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


class Host:
    """A host's own disk, and the consent that runs there."""

    def __init__(
        self, engine: AsyncEngine, vault: Vault, settings: ConsentSettings, folder: Path
    ) -> None:
        self.settings = settings.model_copy(update={"consent_records_dir": folder})
        self.journal = Journal(engine, vault, self.settings)
        self._consumers = make_consumers(engine, vault, self.settings, journal=self.journal)
        self._answers: list[str] = []

    async def permit(self, monkeypatch: pytest.MonkeyPatch, email: str) -> str:
        """Ask as alerts does; what it would be answered."""

        async def reply(_: Any, __: Message, body: dict[str, Any]) -> None:
            self._answers.append(body["answer"])

        monkeypatch.setattr(module, "reply", reply)
        asked = {
            "message": str(uuid4()), "attempt": 1, "address": email, "purpose": "marketing",
        }  # fmt: skip
        message = Message(str(uuid4()), "permit.request", asked)
        outcome = await self._consumers.permits(message)
        assert isinstance(outcome, Ack)
        return self._answers[-1]


@pytest.fixture
def here(engine: AsyncEngine, vault: Vault, settings: ConsentSettings) -> Host:
    return Host(engine, vault, settings, settings.consent_records_dir)


@pytest.fixture
def there(engine: AsyncEngine, vault: Vault, settings: ConsentSettings, tmp_path: Path) -> Host:
    return Host(engine, vault, settings, tmp_path / "another host")


async def replayed(client: Client) -> None:
    status, body = await post(client, "/api/consent/replay-erasures", {}, **ADMIN)
    assert status == 200, body


async def test_a_restored_backup_undoes_no_withdrawal_and_gets_no_permit_before_the_replay(
    client: Client, engine: AsyncEngine, vault: Vault, requester: Holders, backup: Backup,
    here: Host, there: Host, link: Link, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    requester.held = {}
    for email in (ANNA, EWA):
        await grant(engine, vault, email)
    for host in (here, there):
        await host.journal.update()
    backup.take()
    await post(client, "/api/unsubscribe", {"email": ANNA})
    await post(client, "/api/unsubscribe", {"email": JAN})  # of whom the backup knows nothing
    assert (await seen(client, "POST", f"/unsubscribe?token={link(OLA)}", data={}))[0] == 200
    for host in (here, there):
        await host.journal.update()
    backup.restore()

    # Noticed at the very next request, on each host that had noted more than the backup has.
    for host in (here, there):
        assert await host.permit(monkeypatch, ANNA) == "closed"
        assert await host.permit(monkeypatch, EWA) == "closed"
    for host in (here, there):
        await host.journal.update()
    assert metrics.REPLAY_PENDING._value.get() == 1
    assert [entry["action"] for entry in await entries(client, ANNA)] == ["opt-in", "unsubscribe"]
    for email in (ANNA, JAN, OLA):
        assert await here.permit(monkeypatch, email) == "closed"  # not before the erasures, too

    await replayed(client)
    for host in (here, there):
        await host.journal.update()  # records the replay, and follows the trail again
        await host.journal.update()
        for email in (ANNA, JAN, OLA):
            assert await host.permit(monkeypatch, email) == "denied"
        assert await host.permit(monkeypatch, EWA) == "granted"
    assert metrics.REPLAY_PENDING._value.get() == 0


async def test_rows_that_the_next_primary_may_lack_are_not_recorded(
    engine: AsyncEngine, vault: Vault, consent_database: DatabaseUrl, here: Host
) -> None:
    """A demoted primary shows them; a host that recorded one would take the next for a restore."""
    async with engine.begin() as tx:
        await withdraw(tx, vault, unsubscribe(ANNA))
    records, signer = here.settings.checkpoint_file, here.settings.signer()
    for read_only in (True, False):
        url, writes = consent_database.superuser_url, "-c default_transaction_read_only=off"
        with closing(psycopg2.connect(url, options=writes)) as connection:
            connection.autocommit = True
            connection.cursor().execute(
                f"ALTER DATABASE {consent_database.name}"
                f" SET default_transaction_read_only = {read_only}"
            )
        await engine.dispose()
        await here.journal.update()
        await checkpoints.keep(engine, records, signer)
        recorded = [*read(here.settings.withdrawal_files[0]), *records.read(Checkpoint)]
        assert len(recorded) == (0 if read_only else 2)


async def test_no_host_gives_permits_while_one_has_detected_a_restore(
    client: Client, engine: AsyncEngine, vault: Vault, backup: Backup, here: Host, there: Host,
    requester: Holders, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    requester.held = {}
    await grant(engine, vault, EWA)
    backup.take()
    await post(client, "/api/unsubscribe", {"email": ANNA})
    backup.restore()
    assert await there.permit(monkeypatch, EWA) == "granted"  # a new disk knows of nothing
    await here.journal.update()
    assert await there.permit(monkeypatch, EWA) == "closed"
    await replayed(client)
    assert await there.permit(monkeypatch, EWA) == "granted"


async def test_a_replay_waits_for_the_withdrawals_of_its_host(
    client: Client, engine: AsyncEngine, vault: Vault, backup: Backup, there: Host,
    requester: Holders, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    requester.held = {}
    for email in (ANNA, EWA):
        await grant(engine, vault, email)
    backup.take()
    await post(client, "/api/unsubscribe", {"email": ANNA})
    backup.restore()

    apply, may_go_on = journal_module._Copy._apply, asyncio.Event()

    async def takes_long(copy: Any) -> None:
        await may_go_on.wait()
        await apply(copy)

    with monkeypatch.context() as slow:
        slow.setattr(replay_module, "BUDGET_SECONDS", 0.5)
        slow.setattr(journal_module._Copy, "_apply", takes_long)
        status, body = await post(client, "/api/consent/replay-erasures", {}, **ADMIN)
        assert (status, body["left"]) == (202, 1)
        assert await there.permit(monkeypatch, ANNA) == "closed"  # a new disk knows of nothing
    may_go_on.set()
    await replayed(client)
    assert await there.permit(monkeypatch, ANNA) == "denied"
    assert await there.permit(monkeypatch, EWA) == "granted"


async def test_a_repeated_withdrawal_keeps_its_time(
    client: Client, engine: AsyncEngine, vault: Vault, backup: Backup, here: Host
) -> None:
    backup.take()
    await post(client, "/api/unsubscribe", {"email": JAN})
    before = await scalar(engine, "SELECT withdrawn_at FROM consent_state")
    backup.restore()
    await here.journal.update()
    async with engine.begin() as tx:
        again = await tx.scalar(text("SELECT withdrawn_at FROM consent_state"))
        assert again == before
        states = await consents.states(tx, vault.lookup_hash(JAN))
        assert {str(state) for state in states.values()} == {"withdrawn"}


async def test_a_newer_consent_survives_the_restore(
    client: Client, engine: AsyncEngine, vault: Vault, backup: Backup, here: Host
) -> None:
    await post(client, "/api/unsubscribe", {"email": ANNA})
    async with engine.begin() as tx:
        await tx.execute(text("DELETE FROM suppression"))
        await tx.execute(
            text("UPDATE consent_state SET state = 'granted', changed_at = clock_timestamp()")
        )
    backup.take()
    await post(client, "/api/unsubscribe", {"email": JAN})
    backup.restore()
    await here.journal.update()
    async with engine.begin() as tx:
        states = await consents.states(tx, vault.lookup_hash(ANNA))
        assert {str(state) for state in states.values()} == {"granted"}


async def test_an_erasure_by_another_host_is_replayed_here(
    engine: AsyncEngine, vault: Vault, backup: Backup, here: Host, there: Host,
    requester: Holders, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    requester.held = {}
    await grant(engine, vault, ANNA)
    backup.take()
    async with serving(engine, vault, there.settings, requester) as client:
        status, _ = await post(client, "/api/consent/erase", {"email": ANNA}, **ADMIN)
        assert status == 200
    await here.journal.update()
    backup.restore()
    assert await here.permit(monkeypatch, ANNA) == "closed"
    await here.journal.update()
    async with serving(engine, vault, here.settings, requester) as client:
        await replayed(client)
        assert await entries(client, ANNA) == []


async def test_a_lost_host_takes_no_erasure_with_it_not_even_of_someone_unknown_to_the_backup(
    engine: AsyncEngine, vault: Vault, backup: Backup, here: Host, there: Host,
    requester: Holders, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    requester.held = {"followups.commands": [JAN]}  # whose chat the backup has, and no consent
    await grant(engine, vault, EWA)
    backup.take()
    async with serving(engine, vault, there.settings, requester) as client:
        await erase(client, JAN)
    await here.journal.update()
    shutil.rmtree(there.settings.consent_records_dir)
    backup.restore()
    await here.journal.update()
    assert await here.permit(monkeypatch, EWA) == "closed"
    async with serving(engine, vault, here.settings, requester) as client:
        status, body = await post(client, "/api/consent/replay-erasures", {}, **ADMIN)
        assert (status, body["by_address"]) == (200, 1)
        assert (await erasure(client, JAN))["status"] == "in_progress"
    for _ in range(2):  # it records the replay, and follows the trail again
        await here.journal.update()
    assert await here.permit(monkeypatch, EWA) == "granted"


async def test_a_refusal_of_someone_unknown_to_the_backup_keeps_its_suppression(
    client: Client, engine: AsyncEngine, vault: Vault, backup: Backup, here: Host
) -> None:
    backup.take()
    async with engine.begin() as tx:
        refusal = WithdrawalRequest(unsubscribe(OLA), never_ask=True)
        await changes.withdraw(tx, vault, refusal, suppression_days=1)
    await post(client, "/api/unsubscribe", {"email": OLA})  # again, without these words
    backup.restore()
    await here.journal.update()
    async with engine.begin() as tx:
        hashed = vault.suppression_hash(OLA)
        found = await restrictions(tx, hashed)
    assert found.suppressed
    assert found.never_ask


async def test_an_unreadable_row_does_not_stop_the_journal(
    client: Client, engine: AsyncEngine, here: Host, settings: ConsentSettings
) -> None:
    settings.consent_records_dir.mkdir()
    (settings.consent_records_dir / "withdrawals.jsonl").mkdir()  # nothing is recorded yet
    await post(client, "/api/unsubscribe", {"email": ANNA})
    await rows(engine, "UPDATE data_subject SET master_key_id = 'lost'")
    await post(client, "/api/unsubscribe", {"email": JAN})
    (settings.consent_records_dir / "withdrawals.jsonl").rmdir()
    await here.journal.update()
    anna, jan = read(settings.withdrawal_files[0]).values()
    assert (anna.suppression_hash, set(anna.withdrawn)) == (None, {"marketing", "*"})
    assert jan.suppression_hash


async def test_a_refusal_in_the_chat_is_recorded_before_its_message_is_acknowledged(
    engine: AsyncEngine, vault: Vault, backup: Backup, here: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = golden("withdrawal.record")
    await grant(engine, vault, refusal["email"])
    backup.take()
    consumers = make_consumers(engine, vault, here.settings, journal=here.journal)
    message = Message(str(uuid4()), "withdrawal.record", refusal)
    assert isinstance(await consumers.commands(message), Ack)
    backup.restore()
    assert await here.permit(monkeypatch, refusal["email"]) == "closed"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_the_joined_journals_of_two_hosts_lose_nothing_in_any_order(
    engine: AsyncEngine, vault: Vault, backup: Backup, here: Host, there: Host,
    requester: Holders, order: tuple[int, int], tmp_path: Path,
) -> None:  # fmt: skip
    requester.held = {}
    for email in (ANNA, EWA):
        await grant(engine, vault, email)
    backup.take()
    async with serving(engine, vault, here.settings, requester) as client:
        await post(client, "/api/unsubscribe", {"email": ANNA})
        await there.journal.update()
        await erase(client, EWA)  # which the other host did not live to see
    hosts = [host.settings.consent_records_dir for host in (here, there)]
    texts = [(folder / "withdrawals.jsonl").read_text(encoding="utf-8") for folder in hosts]
    joined = Host(engine, vault, here.settings, tmp_path / "joined")
    (tmp_path / "joined").mkdir()
    text = "".join(texts[each] for each in order)
    (tmp_path / "joined" / "withdrawals.jsonl").write_text(text, encoding="utf-8")
    backup.restore()
    await joined.journal.update()
    async with serving(engine, vault, joined.settings, requester) as client:
        await replayed(client)
        states = [entry["action"] for entry in await entries(client, ANNA)]
        assert (states, await entries(client, EWA)) == (["opt-in", "unsubscribe"], [])


async def test_the_copy_elsewhere_replaces_a_lost_disk(
    engine: AsyncEngine, vault: Vault, backup: Backup, settings: ConsentSettings,
    requester: Holders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    copied = settings.model_copy(update={"consent_records_copy": tmp_path / "elsewhere"})
    await grant(engine, vault, ANNA)
    backup.take()
    async with serving(engine, vault, copied, requester) as client:
        await post(client, "/api/unsubscribe", {"email": ANNA})
    shutil.rmtree(settings.consent_records_dir)
    backup.restore()
    anew = Host(engine, vault, copied, tmp_path / "a new disk")
    assert await anew.permit(monkeypatch, ANNA) == "closed"
    await anew.journal.update()
    async with serving(engine, vault, anew.settings, requester) as client:
        assert [entry["action"] for entry in await entries(client, ANNA)] == [
            "opt-in", "unsubscribe",
        ]  # fmt: skip


async def test_a_copy_that_cannot_be_written_keeps_the_own_file_complete(
    settings: ConsentSettings, engine: AsyncEngine, vault: Vault, requester: Holders, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("no folder")
    copied = settings.model_copy(update={"consent_records_copy": tmp_path / "elsewhere"})
    async with serving(engine, vault, copied, requester) as client:
        assert (await post(client, "/api/unsubscribe", {"email": ANNA}))[0] == 200
    journal = Journal(engine, vault, copied)
    with pytest.raises(OSError, match="elsewhere"):
        await journal.update()
    lines = (settings.consent_records_dir / "withdrawals.jsonl").read_text(encoding="utf-8").split()
    assert len([line for line in lines if "subject" in line]) > 0


async def test_a_withdrawal_is_answered_while_the_journal_cannot_be_written(
    client: Client, settings: ConsentSettings, here: Host
) -> None:
    path = settings.consent_records_dir / "withdrawals.jsonl"
    path.mkdir(parents=True)
    answer = await post(client, "/api/unsubscribe", {"email": ANNA})
    assert answer == (200, {"success": True, "email": ANNA, "unsubscribed": True})
    with pytest.raises(IsADirectoryError):
        await here.journal.update()
    path.rmdir()
    await here.journal.update()
    assert len(path.read_text(encoding="utf-8").split()) > 0
    assert ANNA not in path.read_text(encoding="utf-8")


async def test_a_replay_repeats_erasures_after_the_backup(
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
    assert (status, body["incomplete"]) == (202, ["followups", "alerts"])
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
            assert (await restrictions(tx, hashed)).suppressed
            recently = datetime.now(UTC) - timedelta(minutes=1)
            assert await run(tx, "erased_since", hashes=[hashed], at=recently)
    assert (await erasure(client, JAN))["status"] == "in_progress"

    status, body = await replay()
    assert (status, body["already"], body["again"]) == (200, 4, 0)
