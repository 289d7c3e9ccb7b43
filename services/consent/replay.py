"""After a restore from a backup: who was erased since is erased again, here and in the services.

Who that is stands in the file of erasures, which has no addresses. A person whom the restored
database knows has theirs in the trail. One who became known only after the backup may be held by
the other services all the same (a chat before any consent): these tell which addresses they hold,
and the suppression list's hash says which one it is.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import logs
from libs.common.addresses import MalformedAddress, normalise
from libs.common.requests import Requester
from services.consent import changes, erasures, export, trail
from services.consent.consent import PURPOSES, Outcome
from services.consent.records import Records
from services.consent.settings import ConsentSettings
from services.consent.store import consents, erasing, people
from services.consent.trail import Entry
from services.consent.vault import Vault
from services.consent.withdrawals import Withdrawals

log = logs.get_logger(__name__)

AT_ONCE = 50
BUDGET_SECONDS = 5.0  # it may then wait 25 s for permits; the gateway waits 40 s for an answer


class Erased(BaseModel):
    """A line of the file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    person: UUID
    erasure: UUID
    address_hash: str
    at: AwareDatetime


@dataclass(slots=True)
class Replayed:
    already: int = 0
    """Erased in this database, too."""
    again: int = 0
    """Known here, and erased again."""
    by_address: int = 0
    """Not known here; an address that another service holds is theirs, and was ordered erased."""
    unknown: int = 0
    """Nobody holds them."""
    in_flight: int = 0
    """A message is being handed over to them: ask again."""
    left: int = 0
    """Not looked at for want of time: ask again."""
    incomplete: list[str] = field(default_factory=list)
    """Services that did not tell their addresses: ask again."""

    @property
    def done(self) -> bool:
        return not (self.in_flight or self.left or self.incomplete)


class Replay:
    def __init__(
        self,
        engine: AsyncEngine,
        vault: Vault,
        settings: ConsentSettings,
        withdrawals: Withdrawals,
        requester: Requester,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._withdrawals = withdrawals
        self._requester = requester
        self._export_seconds = settings.export_seconds
        self._kept = timedelta(days=settings.suppression_retention_days)
        self._file = Records(settings.consent_records_dir / erasures.FILE)

    async def run(self, entry: Callable[[str], Entry]) -> Replayed:
        """Erase again whom the file names; repeating it is harmless.

        :param entry: what the trail gets for an address
        """
        until = monotonic() + BUDGET_SECONDS
        done = Replayed()
        lines = await asyncio.to_thread(self._read)
        async with self._engine.connect() as tx:
            known = await people.known(tx, list(lines))
        alive = [line for line in lines.values() if known.get(line.person)]
        unknown = [line for line in lines.values() if line.person not in known]
        done.already = len(lines) - len(alive) - len(unknown)
        for start in range(0, len(alive), AT_ONCE):
            if monotonic() >= until:
                done.left = len(alive) - start
                break
            part = alive[start : start + AT_ONCE]
            outcomes = await asyncio.gather(*(self._again(line.person, entry) for line in part))
            done.again += outcomes.count(Outcome.DONE)
            done.in_flight += len(part) - outcomes.count(Outcome.DONE)
        if done.in_flight or done.left:  # whoever asked has waited long enough
            done.left += len(unknown)
        elif unknown:
            await self._by_address(unknown, done)
        log.info("erasures.replayed", **asdict(done))
        return done

    def _read(self) -> dict[UUID, Erased]:
        oldest = datetime.now(UTC) - self._kept
        lines = {}
        for record in self._file.read():
            try:
                line = Erased.model_validate(record)
            except ValidationError:
                log.warning("erasures.damaged_line")
                continue
            if line.at > oldest:  # a backup of before that is none of ours any more
                lines[line.person] = line
        return lines

    async def _again(self, person_id: UUID, entry: Callable[[str], Entry]) -> Outcome:
        async with self._engine.begin() as tx:
            person = await people.person_of(tx, person_id)
            if person is None:  # erased by a twin
                return Outcome.DONE
            email = await trail.address(tx, person_id, person.key(self._vault))
            if email is None:  # a row that a permit made: nothing leads from it to anybody
                await people.forget(tx, person_id)
                return Outcome.DONE
        outcome, _ = await self._withdrawals.erase(entry(email))
        return outcome

    async def _by_address(self, unknown: Sequence[Erased], done: Replayed) -> None:
        wanted: dict[bytes, list[Erased]] = {}
        for line in unknown:
            wanted.setdefault(bytes.fromhex(line.address_hash), []).append(line)
        found: dict[bytes, str] = {}

        def look(records: export.Records) -> None:
            for record in records.get("addresses", ()):
                try:
                    address = normalise(str(record.get("address")))
                except MalformedAddress:
                    continue
                if (address_hash := self._vault.suppression_hash(address)) in wanted:
                    found[address_hash] = address

        done.incomplete = await export.addresses(self._requester, self._export_seconds, look)
        if done.incomplete:
            done.left += len(unknown)
            return
        for address_hash, lines in wanted.items():
            address = found.get(address_hash)
            async with self._engine.begin() as tx:
                for line in lines:
                    await self._note(tx, line, address_hash, address)
            done.by_address += len(lines) if address else 0
            done.unknown += 0 if address else len(lines)

    async def _note(
        self, tx: AsyncConnection, line: Erased, address_hash: bytes, address: str | None
    ) -> None:
        await erasing.erased_elsewhere(
            tx, line.person, line.erasure, address_hash, line.at, under_way=bool(address)
        )
        left = line.at + self._kept - datetime.now(UTC)
        await consents.suppress(tx, {line.person: address_hash}, PURPOSES, left.days)
        if address:
            await changes.give_order(tx, self._vault, address, line.erasure)
