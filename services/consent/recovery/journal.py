"""The journal of withdrawals and erasures outside the database, so that no restore undoes one.

Each replica follows the trail and records on its own host's disk who withdrew or was erased, with
the row's position in the chain. So each host has every withdrawal and erasure, even those that
another host has answered, and a copy may be kept elsewhere (`CONSENT_RECORDS_COPY`). If the trail
lacks the newest position, the database was restored (or changed): no permit is granted until every
host has applied its withdrawals and the erasures were repeated (`replay`).
"""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.group_commit import Batches
from libs.common.process.logs import log
from services.consent import changes, metrics
from services.consent.changes import WithdrawalRequest
from services.consent.rules import Action
from services.consent.settings import ConsentSettings
from services.consent.store import data_subjects
from services.consent.store.data_subjects import Lock, SubjectRow, parse_subject
from services.consent.store.sql import run
from services.consent.store.vault import Vault, WrappedKey
from services.consent.trail import chain
from services.consent.trail.append_only_file import AppendOnlyFile
from services.consent.trail.chain import START, Entry, Position

LOOK_SECONDS = 1.0
RECORD_SECONDS = 5.0
BATCH = 500
SHARED = 1000
"""Callers of one update."""


class JournalEntry(BaseModel):
    """A subject who withdrew or was erased, without an address: a random id and keyed hashes."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    row: int = Field(ge=0)
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    subject: UUID | None = None
    """None: a restart of the journal after a restore."""
    lookup_hash: str | None = None
    suppression_hash: str | None = None
    keys: int = Field(1, ge=1)
    """How many keys made the hashes."""
    withdrawn: dict[str, AwareDatetime] = {}
    """The time of the last withdrawal, by purpose."""
    never_ask: bool = False
    erased_at: AwareDatetime | None = None
    erasure: UUID | None = None

    @property
    def position(self) -> Position:
        return Position(self.row, bytes.fromhex(self.hash))

    def added_to(self, other: "JournalEntry") -> "JournalEntry":
        """Merge two entries of a subject; the order does not matter, as files may be joined."""
        withdrawn = {
            purpose: max(self.withdrawn.get(purpose, at), other.withdrawn.get(purpose, at))
            for purpose, at in (self.withdrawn | other.withdrawn).items()
        }
        newer, older = (self, other) if self.keys >= other.keys else (other, self)
        merged = {
            "lookup_hash": newer.lookup_hash or older.lookup_hash,
            "suppression_hash": newer.suppression_hash or older.suppression_hash,
            "withdrawn": withdrawn,
            "never_ask": self.never_ask or other.never_ask,
            "erased_at": self.erased_at or other.erased_at,
            "erasure": self.erasure or other.erasure,
        }
        return newer.model_copy(update=merged)


def read(file: AppendOnlyFile) -> dict[UUID, JournalEntry]:
    """Read what is known of each data subject."""
    found: dict[UUID, JournalEntry] = {}
    for entry in file.read(JournalEntry):
        if (subject := entry.subject) is not None:
            found[subject] = entry.added_to(found[subject]) if subject in found else entry
    return found


def trim(file: AppendOnlyFile, days: int) -> None:
    """Drop what is older than any replay looks at; blocks.

    The newest line stays: its position reveals a restore, and shows where to follow the trail.
    """
    oldest = datetime.now(UTC) - timedelta(days=days)
    newest = next(file.newest(JournalEntry), None)

    def is_kept(entry: JournalEntry) -> bool:
        times = [at for at in (*entry.withdrawn.values(), entry.erased_at) if at is not None]
        return entry.subject is None or any(at > oldest for at in times) or entry == newest

    if not all(map(is_kept, file.read(JournalEntry))):
        file.keep(JournalEntry, is_kept)


class Journal:
    """This host's journal, and its copy if there is one."""

    def __init__(self, engine: AsyncEngine, vault: Vault, settings: ConsentSettings) -> None:
        self._copies = [_Copy(engine, vault, settings, file) for file in settings.withdrawal_files]

    async def trim(self) -> None:
        """:raises OSError:"""
        for copy in self._copies:
            await copy.trim()

    async def is_current(self, tx: AsyncConnection) -> bool:
        """Return whether the database is the one that every host followed last."""
        newest = max((copy.position for copy in self._copies), key=lambda each: each.rows)
        return bool((await run(tx, "is_current", **newest._asdict())).scalar())

    async def update(self) -> None:
        """Write new entries of the trail; runs every second.

        :raises OSError: a file cannot be written; the others are
        """
        found = await asyncio.gather(
            *(copy.update() for copy in self._copies), return_exceptions=True
        )
        failures = [each for each in found if isinstance(each, BaseException)]
        metrics.REPLAY_PENDING.set(any(each is False for each in found))
        if failures:
            raise failures[0]

    async def settled(self, seconds: float) -> bool:
        """Return whether, within this time, the database has what this host has recorded."""
        try:
            async with asyncio.timeout(seconds):
                await self.update()
        except TimeoutError:
            return False
        return True

    async def record(self) -> None:
        """Record a withdrawal or an erasure, after its commit and before its answer.

        If that fails, the act still counts: the periodic job retries, and reports the failure.
        """
        try:
            async with asyncio.timeout(RECORD_SECONDS):
                await self.update()
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("journal.not_recorded", error=type(error).__name__)


class _Copy:
    def __init__(
        self, engine: AsyncEngine, vault: Vault, settings: ConsentSettings, file: AppendOnlyFile
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._suppression_days = settings.suppression_retention_days
        self._file = file
        self._position: Position | None = None
        self._followed = 0
        """The row up to which the file is complete."""
        self._applied: Position | None = None
        # Callers that arrive during an update share the next one: their rows may be too new for it.
        self._updates = Batches(self._update, limit=SHARED)

    @property
    def position(self) -> Position:
        return self._position or self._newest()

    async def trim(self) -> None:
        await asyncio.to_thread(trim, self._file, self._suppression_days)

    async def update(self) -> bool:
        """Follow the trail.

        :returns: whether the trail has what the file has
        """
        return await self._updates.submit(None)

    async def _update(self, callers: Sequence[None]) -> list[bool]:
        newest = self._newest()
        if newest != self._position:  # also when another process of this host has written
            self._position, self._followed = newest, newest.rows
        place = newest._asdict()
        async with self._engine.begin() as tx:
            found = (await run(tx, "has_position", **place)).one()
            if found.is_there and found.noticed:
                await run(tx, "position_is_back", **place)
        if found.is_there:
            await self._follow()
        else:
            await self._recover(newest)
        return [bool(found.is_there)] * len(callers)

    def _newest(self) -> Position:
        newest = next(self._file.newest(JournalEntry), None)
        return newest.position if newest else START

    async def _follow(self) -> None:
        while True:
            async with self._engine.connect() as tx:
                if await chain.may_be_undone(tx):
                    return
                head = (await chain.head(tx)).rows
                asked = {"after": self._followed, "until": head, "batch": BATCH}
                rows = await run(tx, "withdrawn_after", **asked)
            entries = [self._entry(row) for row in rows]
            if entries:
                await self._file.append(*(entry.model_dump(mode="json") for entry in entries))
                self._position = entries[-1].position
            if len(rows) < BATCH:
                self._followed = head
                return
            self._followed = rows[-1].id

    def _entry(self, row: Any) -> JournalEntry:
        entry = JournalEntry(
            row=row.id,
            hash=row.hash,
            subject=row.subject_id,
            lookup_hash=row.lookup_hash,
            keys=len(self._vault.hash_keys),
            withdrawn=row.withdrawn or {},
        )
        more: dict[str, Any] = {}
        if row.action == Action.ERASED:
            more = {
                "erased_at": row.erased_at,
                "erasure": row.erasure_id,
                "suppression_hash": row.suppression_hash,
            }
        elif row.wrapped_key is not None:  # not erased since
            try:
                more = self._unsealed(row)
            except (KeyError, InvalidTag, ValueError) as error:
                # A lost key or a damaged cell of one subject must not stop the journal of all.
                log.warning("journal.unreadable_row", row=row.id, error=type(error).__name__)
        return entry.model_copy(update=more)

    def _unsealed(self, row: Any) -> dict[str, Any]:
        wrapped = WrappedKey(row.master_key_id, row.wrapped_key)
        key = SubjectRow(row.subject_id, wrapped).key(self._vault)
        identity = parse_subject(key.decrypt("email", row.email) or "").identity
        evidence = json.loads(key.decrypt("evidence", row.evidence) or "{}")
        return {
            "suppression_hash": self._vault.suppression_hash(identity).hex(),
            "never_ask": bool(evidence.get("never_ask")),
        }

    async def _recover(self, position: Position) -> None:
        log.error("journal.restored", rows=position.rows)
        replayed = (
            await run.alone(self._engine, "record_missing", **position._asdict())
        ).scalar_one()
        if self._applied != position:
            await self._apply()
            self._applied = position
        if replayed:
            entry = JournalEntry(row=0, hash=START.hash.hex())
            now = datetime.now(UTC).isoformat()
            await self._file.append(entry.model_dump(mode="json") | {"at": now})
            log.info("journal.replayed")

    async def _apply(self) -> None:
        """Repeat the withdrawals that are in the file but not in the database."""
        oldest = datetime.now(UTC) - timedelta(days=self._suppression_days)
        entries = {
            subject_id: entry
            for subject_id, entry in (await asyncio.to_thread(read, self._file)).items()
            if entry.erased_at is None  # `replay` withdraws as well
            and any(at > oldest for at in entry.withdrawn.values())
        }
        withdrawals = [
            (subject_id, purpose, at)
            for subject_id, entry in entries.items()
            for purpose, at in entry.withdrawn.items()
        ]
        repeated = 0
        for start in range(0, len(withdrawals), BATCH):
            part = withdrawals[start : start + BATCH]
            subjects, purposes, times = zip(*part, strict=True)
            given = {
                "ids": [*map(str, subjects)],
                "purposes": [*purposes],
                "times": [at.isoformat() for at in times],
            }
            lacking = await run.alone(self._engine, "withdrawals_without", **given)
            for number in lacking.scalars():
                subject_id, purpose, at = part[number - 1]
                async with self._engine.begin() as tx:
                    repeated += await self._withdraw_again(
                        tx, subject_id, entries[subject_id], purpose, at
                    )
        log.warning("journal.applied", withdrawn=repeated, of=len(entries))

    async def _withdraw_again(
        self, tx: AsyncConnection, subject_id: UUID, entry: JournalEntry, purpose: str, at: datetime
    ) -> bool:
        known = await data_subjects.known(tx, [subject_id])
        if known.get(subject_id) is False:  # erased
            return False
        if not known and entry.lookup_hash is not None:
            # The subject became known after the backup, and may be known again by now.
            lookup_hash = self._vault.rehash(bytes.fromhex(entry.lookup_hash), entry.keys)
            await data_subjects.insert(tx, self._vault, subject_id, lookup_hash)
            subject_id = (await run(tx, Lock.NONE, hash=lookup_hash)).one().id
        elif not known:
            return False
        await run(tx, "lock_subject", subject=subject_id)
        said = {"subject": subject_id, "purpose": purpose, "at": at}
        if (await run(tx, "agreed_after", **said)).scalar():
            return False
        subject = await data_subjects.find_by_id(tx, subject_id)
        email = None
        if subject is not None:
            email = await chain.last_email(tx, subject_id, subject.key(self._vault))
        if email is None:
            withdrawn = {"subject": subject_id, "purposes": [purpose]}
            await run(tx, "withdraw", **withdrawn, at=at)
            if entry.suppression_hash is not None:
                hashed = self._vault.rehash(bytes.fromhex(entry.suppression_hash), entry.keys)
                await run(
                    tx, "suppress", **withdrawn, hash=hashed, days=self._suppression_days,
                    never_ask=entry.never_ask,
                )  # fmt: skip
        else:
            evidence: dict[str, Any] = {"source": "replay", "withdrawn_at": at.isoformat()}
            request = WithdrawalRequest(
                Entry(Action.UNSUBSCRIBE, email, evidence=evidence),
                [purpose],
                never_ask=entry.never_ask,
                at=at,
            )
            await changes.withdraw(
                tx, self._vault, request, suppression_days=self._suppression_days
            )
        return True
