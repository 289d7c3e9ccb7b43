"""After a restore: repeats the erasures since the backup, here and in the other services.

The journal identifies the subjects without addresses. If the restored database knows a
subject, the trail has the address. A subject who became known after the backup (a chat before any
consent) may only exist in other services: they send their addresses, and the suppression hash
identifies the subject.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging.rpc import Requester
from libs.common.process.logs import log
from services.consent import erasure_orders, export
from services.consent.changes import Note
from services.consent.recovery import journal
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import ALL, ErasureStatus, Subject, WithdrawalResult
from services.consent.settings import ConsentSettings
from services.consent.store import data_subjects
from services.consent.store.data_subjects import parse_subject
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.trail import chain
from services.consent.trail.chain import Entry

AT_ONCE = 50
BUDGET_SECONDS = 5.0  # it may then wait 25 s for permits; the gateway waits 40 s for an answer


@dataclass(frozen=True, slots=True)
class Erased:
    subject: UUID
    erasure: UUID
    suppression_hash: bytes | None
    """None: only the subject's id is recorded."""
    at: datetime


@dataclass(slots=True)
class Replayed:
    already: int = 0
    """Already erased in this database."""
    again: int = 0
    """Known here; erased again."""
    by_address: int = 0
    """Unknown here; another service has the address and was ordered to erase it."""
    unknown: int = 0
    """No service has the subject."""
    in_flight: int = 0
    """A message to them is being sent: call again."""
    left: int = 0
    """Out of time, or withdrawals are still being repeated: call again."""
    incomplete: list[str] = field(default_factory=list)
    """Services that did not send their addresses: call again."""

    @property
    def done(self) -> bool:
        return not (self.in_flight or self.left or self.incomplete)


@dataclass
class Replay:
    engine: AsyncEngine
    vault: Vault
    settings: ConsentSettings
    withdrawals: Withdrawals
    requester: Requester

    def __post_init__(self) -> None:
        self._kept = timedelta(days=self.settings.suppression_retention_days)

    async def run(self, entry: Callable[[str], Entry], note: Note) -> Replayed:
        """Repeat the erasures in the journal; repeating them is harmless.

        Each host applies its own withdrawals (`journal`). After both, permits are granted again.

        :param entry: makes the trail's entry for an address
        """
        until = monotonic() + BUDGET_SECONDS
        done = Replayed()
        entries = await asyncio.to_thread(self._read)
        async with self.engine.connect() as tx:
            known = await data_subjects.known(tx, list(entries))
        alive = [each for each in entries if known.get(each)]
        unknown = [each for subject_id, each in entries.items() if subject_id not in known]
        done.already = sum(known.get(each) is False for each in entries)
        for start in range(0, len(alive), AT_ONCE):
            if monotonic() >= until:
                done.left = len(alive) - start
                break
            part = alive[start : start + AT_ONCE]
            results = await asyncio.gather(*(self._again(each, entry, note) for each in part))
            done.again += results.count(WithdrawalResult.DONE)
            nameless = [each for each, result in zip(part, results, strict=True) if not result]
            unknown += [entries[each] for each in nameless]
            done.in_flight += len(part) - results.count(WithdrawalResult.DONE) - len(nameless)
        if done.in_flight or done.left:  # the caller has waited long enough
            done.left += len(unknown)
        elif unknown:
            await self._by_address(unknown, done, note)
        # Another host, which recorded nothing itself, grants permits from the next line on.
        if done.done and not await self.withdrawals.journal.settled(BUDGET_SECONDS):
            done.left += 1
        if done.done:
            await run.alone(self.engine, "record_replayed")
        log.info("erasures.replayed", **asdict(done))
        return done

    def _read(self) -> dict[UUID, Erased]:
        oldest = datetime.now(UTC) - self._kept  # older than any backup
        found = {}
        for file in self.settings.withdrawal_files:
            for subject_id, entry in journal.read(file).items():
                if entry.erased_at is None or entry.erased_at <= oldest:
                    continue
                hashed = entry.suppression_hash and self.vault.rehash(
                    bytes.fromhex(entry.suppression_hash), entry.keys
                )
                erasure = entry.erasure or uuid4()
                found[subject_id] = Erased(subject_id, erasure, hashed or None, entry.erased_at)
        return found

    async def _again(
        self, subject_id: UUID, entry: Callable[[str], Entry], note: Note
    ) -> WithdrawalResult | None:
        """Erase again; None: the address is unknown here, but another service may have it."""
        async with self.engine.begin() as tx:
            row = await data_subjects.find_by_id(tx, subject_id)
            if row is None:  # erased by a duplicate of this call
                return WithdrawalResult.DONE
            await run(tx, "lift", subject=subject_id)  # as it was when they were erased
            email = await chain.last_email(tx, subject_id, row.key(self.vault))
        if email is None:  # a row that a permit made, or the journal
            return None
        return (await self.withdrawals.erase(entry(email), note)).result

    async def _by_address(self, unknown: Sequence[Erased], done: Replayed, note: Note) -> None:
        wanted: dict[bytes | None, list[Erased]] = {}
        for each in unknown:
            wanted.setdefault(each.suppression_hash, []).append(each)
        found: dict[bytes, Subject] = {}

        def look(records: export.Records) -> None:
            for record in records.get("addresses", ()):
                try:
                    subject = parse_subject(str(record.get("address")))
                except ValueError:
                    continue
                if (hashed := self.vault.suppression_hash(subject.identity)) in wanted:
                    found[hashed] = subject

        done.incomplete = await export.addresses(self.requester, self.settings.export_seconds, look)
        if done.incomplete:
            done.left += len(unknown)
            return
        for suppression_hash, erased in wanted.items():
            subject = suppression_hash and found.get(suppression_hash)
            async with self.engine.begin() as tx:
                for each in erased:
                    await self._record_missed(tx, each, subject or None)
                    if subject:
                        await note(tx, each.subject)
            done.by_address += len(erased) if subject else 0
            done.unknown += 0 if subject else len(erased)

    async def _record_missed(
        self, tx: AsyncConnection, erased: Erased, subject: Subject | None
    ) -> None:
        # The row was made by a permit or the journal.
        await run(tx, "forget", subject=erased.subject)
        # In progress: another service has the address and must erase it.
        status = str(ErasureStatus.IN_PROGRESS if subject else ErasureStatus.DONE)
        whose = {"subject": erased.subject, "hash": erased.suppression_hash}
        await run(tx, "record_missed", **whose, id=erased.erasure, at=erased.at, status=status)
        if erased.suppression_hash is not None:
            left = erased.at + self._kept - datetime.now(UTC)
            await run(tx, "suppress", **whose, purposes=[*ALL], days=left.days, never_ask=False)
        if subject:
            await erasure_orders.order(tx, self.vault, erased.erasure, subject)
