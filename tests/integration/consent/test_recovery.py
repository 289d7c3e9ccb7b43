"""After a restored backup, no one who withdrew or was erased since gets a message."""

import asyncio
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack
from libs.common.messaging.rpc import NoReply
from services.consent import consumers as module
from services.consent import metrics
from services.consent.recovery import journal as journal_module
from services.consent.recovery import replay as replay_module
from services.consent.recovery.journal import read
from services.consent.store.sql import run
from services.consent.trail import checkpoints
from services.consent.trail.checkpoints import Checkpoint
from tests.integration.consent.conftest import (
    ADMIN,
    ANNA,
    Consent,
)
from tests.support.contracts import golden
from tests.support.databases import DatabaseUrl

pytestmark = pytest.mark.promise("P4")

JAN, EWA, OLA = "jan@example.com", "ewa@example.com", "ola@example.com"


class Holders:
    """The other services, as far as they send the addresses that they hold."""

    def __init__(self) -> None:
        self.held: Mapping[str, list[str]] | None = {}

    async def ask(self, exchange: str, _: str, __: str, body: Any, **___: Any) -> Any:
        if self.held is None or body["email"] is not None:
            raise NoReply
        found = [{"address": each} for each in self.held.get(exchange, [])]
        return {"records": {"addresses": found}, "next": None}


@pytest.fixture
def requester() -> Holders:
    return Holders()


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


@dataclass
class Host(Consent):
    """Consent on a host whose disk is its own."""

    async def may(self, email: str) -> str:
        """Ask as alerts does; what it would be answered."""
        answers: list[str] = []

        async def reply(_: Any, __: Message, body: dict[str, Any]) -> None:
            answers.append(body["answer"])

        asked = {
            "message": str(uuid4()), "attempt": 1, "address": email, "purpose": "marketing",
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "reply", reply)
            outcome = await self.consumers.permits(Message(str(uuid4()), "permit.request", asked))
        assert isinstance(outcome, Ack)
        return answers[-1]

    @property
    def recorded(self) -> Path:
        return self.settings.withdrawal_files[0].path


def host_of(consent: Consent, **changed: Any) -> Host:
    settings = consent.settings.model_copy(update=changed)
    return Host(consent.database, consent.engine, consent.vault, settings, consent.requester)


@pytest.fixture
def here(consent: Consent) -> Host:
    return host_of(consent)


@pytest.fixture
def there(consent: Consent, tmp_path: Path) -> Host:
    return host_of(consent, consent_records_dir=tmp_path / "another host")


async def replayed(consent: Consent) -> None:
    status, body = await consent.post("/api/consent/replay-erasures", {}, **ADMIN)
    assert status == 200, body


async def test_a_restored_backup_undoes_no_withdrawal_and_gets_no_permit_before_the_replay(
    consent: Consent, backup: Backup, here: Host, there: Host
) -> None:
    for email in (ANNA, EWA):
        await consent.grant(email)
    for host in (here, there):
        await host.journal.update()
    backup.take()
    await consent.post("/api/unsubscribe", {"email": ANNA})
    await consent.post("/api/unsubscribe", {"email": JAN})  # the backup does not know him
    url = f"/unsubscribe?token={consent.link(OLA)}"
    assert (await consent.seen("POST", url, data={}))[0] == 200
    for host in (here, there):
        await host.journal.update()
    backup.restore()

    # Noticed at the very next request, on each host that had noted more than the backup has.
    for host in (here, there):
        assert await host.may(ANNA) == "closed"
        assert await host.may(EWA) == "closed"
    for host in (here, there):
        await host.journal.update()
    assert metrics.REPLAY_PENDING._value.get() == 1
    assert [entry["action"] for entry in await consent.entries(ANNA)] == ["opt-in", "unsubscribe"]
    for email in (ANNA, JAN, OLA):
        assert await here.may(email) == "closed"  # not before the erasures, too

    await replayed(consent)
    for host in (here, there):
        await host.journal.update()  # records the replay, and follows the trail again
        await host.journal.update()
        for email in (ANNA, JAN, OLA):
            assert await host.may(email) == "denied"
        assert await host.may(EWA) == "granted"
    assert metrics.REPLAY_PENDING._value.get() == 0


async def test_rows_that_the_next_primary_may_lack_are_not_recorded(
    consent: Consent, here: Host
) -> None:
    """A demoted primary shows them; a host that recorded one would take the next for a restore."""
    await consent.withdraw(ANNA)
    records, signer = here.settings.checkpoint_file, here.settings.signer()
    for read_only in (True, False):
        url, writes = consent.database.superuser_url, "-c default_transaction_read_only=off"
        with closing(psycopg2.connect(url, options=writes)) as connection:
            connection.autocommit = True
            connection.cursor().execute(
                f"ALTER DATABASE {consent.database.name}"
                f" SET default_transaction_read_only = {read_only}"
            )
        await consent.engine.dispose()
        await here.journal.update()
        await checkpoints.keep(consent.engine, records, signer)
        recorded = [*read(here.settings.withdrawal_files[0]), *records.read(Checkpoint)]
        assert len(recorded) == (0 if read_only else 2)


async def test_no_host_gives_permits_while_one_has_detected_a_restore(
    consent: Consent, backup: Backup, here: Host, there: Host
) -> None:
    await consent.grant(EWA)
    backup.take()
    await consent.post("/api/unsubscribe", {"email": ANNA})
    backup.restore()
    assert await there.may(EWA) == "granted"  # a new disk knows of nothing
    await here.journal.update()
    assert await there.may(EWA) == "closed"
    await replayed(consent)
    assert await there.may(EWA) == "granted"


async def test_a_replay_waits_for_the_withdrawals_of_its_host(
    consent: Consent, backup: Backup, there: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for email in (ANNA, EWA):
        await consent.grant(email)
    backup.take()
    await consent.post("/api/unsubscribe", {"email": ANNA})
    backup.restore()

    apply, may_go_on = journal_module._Copy._apply, asyncio.Event()

    async def takes_long(copy: Any) -> None:
        await may_go_on.wait()
        await apply(copy)

    with monkeypatch.context() as slow:
        slow.setattr(replay_module, "BUDGET_SECONDS", 0.5)
        slow.setattr(journal_module._Copy, "_apply", takes_long)
        status, body = await consent.post("/api/consent/replay-erasures", {}, **ADMIN)
        assert (status, body["left"]) == (202, 1)
        assert await there.may(ANNA) == "closed"  # a new disk knows of nothing
    may_go_on.set()
    await replayed(consent)
    assert await there.may(ANNA) == "denied"
    assert await there.may(EWA) == "granted"


async def test_a_repeated_withdrawal_keeps_its_time(
    consent: Consent, backup: Backup, here: Host
) -> None:
    backup.take()
    await consent.post("/api/unsubscribe", {"email": JAN})
    before = await consent.scalar("SELECT withdrawn_at FROM consent_state")
    backup.restore()
    await here.journal.update()
    assert await consent.scalar("SELECT withdrawn_at FROM consent_state") == before
    assert {*(await consent.states(JAN)).values()} == {"withdrawn"}


async def test_a_newer_consent_survives_the_restore(
    consent: Consent, backup: Backup, here: Host
) -> None:
    await consent.post("/api/unsubscribe", {"email": ANNA})
    await consent.rows("DELETE FROM suppression")
    await consent.rows("UPDATE consent_state SET state = 'granted', changed_at = now()")
    backup.take()
    await consent.post("/api/unsubscribe", {"email": JAN})
    backup.restore()
    await here.journal.update()
    assert {*(await consent.states(ANNA)).values()} == {"granted"}


async def test_an_erasure_by_another_host_is_replayed_here(
    consent: Consent, backup: Backup, here: Host, there: Host
) -> None:
    await consent.grant(ANNA)
    backup.take()
    async with there.serving() as client:
        status, _ = await client.post("/api/consent/erase", {"email": ANNA}, **ADMIN)
        assert status == 200
    await here.journal.update()
    backup.restore()
    assert await here.may(ANNA) == "closed"
    await here.journal.update()
    async with here.serving() as client:
        await replayed(client)
        assert await client.entries(ANNA) == []


async def test_a_lost_host_takes_no_erasure_with_it_not_even_of_someone_unknown_to_the_backup(
    consent: Consent, backup: Backup, here: Host, there: Host, requester: Holders
) -> None:
    requester.held = {"followups.commands": [JAN]}  # whose chat the backup has, and no consent
    await consent.grant(EWA)
    backup.take()
    async with there.serving() as client:
        await client.erase(JAN)
    await here.journal.update()
    shutil.rmtree(there.settings.consent_records_dir)
    backup.restore()
    await here.journal.update()
    assert await here.may(EWA) == "closed"
    async with here.serving() as client:
        status, body = await client.post("/api/consent/replay-erasures", {}, **ADMIN)
        assert (status, body["by_address"]) == (200, 1)
        assert (await client.erasure(JAN))["status"] == "in_progress"
    for _ in range(2):  # it records the replay, and follows the trail again
        await here.journal.update()
    assert await here.may(EWA) == "granted"


async def test_a_refusal_of_someone_unknown_to_the_backup_keeps_its_suppression(
    consent: Consent, backup: Backup, here: Host
) -> None:
    backup.take()
    await consent.withdraw(OLA, never_ask=True)
    await consent.post("/api/unsubscribe", {"email": OLA})  # again, without these words
    backup.restore()
    await here.journal.update()
    found = await consent.suppression(OLA)
    assert found.suppressed
    assert found.never_ask


async def test_an_unreadable_row_does_not_stop_the_journal(consent: Consent, here: Host) -> None:
    here.recorded.mkdir(parents=True)  # nothing is recorded yet
    await consent.post("/api/unsubscribe", {"email": ANNA})
    await consent.rows("UPDATE data_subject SET master_key_id = 'lost'")
    await consent.post("/api/unsubscribe", {"email": JAN})
    here.recorded.rmdir()
    await here.journal.update()
    anna, jan = read(consent.settings.withdrawal_files[0]).values()
    assert (anna.suppression_hash, set(anna.withdrawn)) == (None, {"marketing", "*"})
    assert jan.suppression_hash


async def test_a_refusal_in_the_chat_is_recorded_before_its_message_is_acknowledged(
    consent: Consent, backup: Backup, here: Host
) -> None:
    refusal = golden("withdrawal.record")
    await consent.grant(refusal["email"])
    backup.take()
    assert await here.takes("withdrawal.record", refusal) == Ack()
    backup.restore()
    assert await here.may(refusal["email"]) == "closed"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_the_joined_journals_of_two_hosts_lose_nothing_in_any_order(
    consent: Consent,
    backup: Backup,
    here: Host,
    there: Host,
    order: tuple[int, int],
    tmp_path: Path,
) -> None:
    for email in (ANNA, EWA):
        await consent.grant(email)
    backup.take()
    async with here.serving() as client:
        await client.post("/api/unsubscribe", {"email": ANNA})
        await there.journal.update()
        await client.erase(EWA)  # which the other host did not live to see
    texts = [host.recorded.read_text(encoding="utf-8") for host in (here, there)]
    joined = host_of(consent, consent_records_dir=tmp_path / "joined")
    joined.recorded.parent.mkdir()
    joined.recorded.write_text("".join(texts[each] for each in order), encoding="utf-8")
    backup.restore()
    await joined.journal.update()
    async with joined.serving() as client:
        await replayed(client)
        states = [entry["action"] for entry in await client.entries(ANNA)]
        assert (states, await client.entries(EWA)) == (["opt-in", "unsubscribe"], [])


async def test_the_copy_elsewhere_replaces_a_lost_disk(
    consent: Consent, backup: Backup, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    lost, anew = (
        host_of(consent, consent_records_copy=copy, consent_records_dir=tmp_path / disk)
        for disk in ("lost", "a new disk")
    )
    await consent.grant(ANNA)
    backup.take()
    async with lost.serving() as client:
        await client.post("/api/unsubscribe", {"email": ANNA})
    shutil.rmtree(lost.recorded.parent)
    backup.restore()
    assert await anew.may(ANNA) == "closed"
    await anew.journal.update()
    actions = [entry["action"] for entry in await consent.entries(ANNA)]
    assert actions == ["opt-in", "unsubscribe"]


async def test_a_copy_that_cannot_be_written_keeps_the_own_file_complete(
    consent: Consent, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("no folder")
    host = host_of(consent, consent_records_copy=tmp_path / "elsewhere")
    async with host.serving() as client:
        assert (await client.post("/api/unsubscribe", {"email": ANNA}))[0] == 200
    with pytest.raises(OSError, match="elsewhere"):
        await host.journal.update()
    assert "subject" in host.recorded.read_text(encoding="utf-8")


async def test_a_withdrawal_is_answered_while_the_journal_cannot_be_written(
    consent: Consent, here: Host
) -> None:
    path = here.recorded
    path.mkdir(parents=True)
    answer = await consent.post("/api/unsubscribe", {"email": ANNA})
    assert answer == (200, {"success": True, "email": ANNA, "unsubscribed": True})
    with pytest.raises(IsADirectoryError):
        await here.journal.update()
    path.rmdir()
    await here.journal.update()
    assert len(path.read_text(encoding="utf-8").split()) > 0
    assert ANNA not in path.read_text(encoding="utf-8")


async def test_a_replay_repeats_erasures_after_the_backup(
    consent: Consent, requester: Holders, backup: Backup
) -> None:
    ewa, ola = "ewa@example.com", "ola@example.com"
    for email in (ANNA, ewa):
        await consent.grant(email)
    await consent.erase(ewa)  # of before the backup: it knows that
    backup.take()
    await consent.grant(JAN)  # after it, as are these erasures
    for email in (ANNA, JAN, ola):
        await consent.erase(email)
    backup.restore()
    assert [entry["action"] for entry in await consent.entries(ANNA)] == ["opt-in"]

    async def replay() -> tuple[int, Any]:
        return await consent.post("/api/consent/replay-erasures", {}, **ADMIN)

    requester.held = None
    status, body = await replay()
    assert (status, body["incomplete"]) == (202, ["followups", "alerts"])
    assert (body["already"], body["again"], body["left"]) == (1, 1, 2)

    requester.held = {"followups.commands": [JAN.upper(), "somebody@example.com", "no address"]}
    status, body = await replay()
    assert status == 200
    assert (body["already"], body["by_address"], body["unknown"]) == (2, 1, 1)
    assert await consent.entries(ANNA) == []
    erased_again = {order["email"] for _, order in await consent.orders()}
    assert erased_again == {ANNA, JAN, ewa}
    for email in (ANNA, JAN, ola):
        assert (await consent.suppression(email)).suppressed
        hashed = consent.vault.suppression_hash(email)
        async with consent.engine.begin() as tx:
            recently = datetime.now(UTC) - timedelta(minutes=1)
            assert await run(tx, "erased_since", hashes=[hashed], at=recently)
    assert (await consent.erasure(JAN))["status"] == "in_progress"

    status, body = await replay()
    assert (status, body["already"], body["again"]) == (200, 4, 0)
