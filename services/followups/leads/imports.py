"""Import of leads and their consents from files.

Each batch of rows is one transaction. Importing a row again changes nothing: an address has one
conversation without a chat, and the id of a grant or a withdrawal is derived from its evidence. An
import enrols no one, undoes no withdrawal, and stores nothing of a person who was ever erased. A
grant counts if its text was published, its date is possible and its source is given; any other is
kept as evidence, and the person is asked by mail. A withdrawal counts from its import on, whatever
date it has: it also ends what an earlier import granted.
"""

import asyncio
import uuid
from collections.abc import AsyncIterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Model, Problem, faults
from libs.common.messaging import outbox
from libs.common.messaging.rpc import NoReply, Requester
from libs.common.process.logs import log
from libs.domain.acts_outbox import Counted
from libs.domain.company import Channel, PurposeName, pair
from libs.domain.email_address import normalise
from libs.domain.forms import is_possible
from services.followups import messages, metrics
from services.followups.config import LANGUAGES, Config
from services.followups.dialogue.state import State
from services.followups.leads.records import Record
from services.followups.mails import enrolment
from services.followups.reading import numbers, phone
from services.followups.rules import facts
from services.followups.rules import score as lead_score
from services.followups.rules.fact_texts import describe_start
from services.followups.rules.facts import Facts
from services.followups.store.conversations import Subject
from services.followups.store.sql import run
from services.followups.store.submissions import Erased
from services.followups.topology import CONSENT_COMMANDS

MAX_ROWS = 100_000
BATCH = 500
OUTBOX_FULL = 1000
"""Pause the import at this many waiting messages, so that alerts do not queue behind its grants."""
PATIENCE_SECONDS = 20.0  # below the gateway's own time-out
ANSWER_SECONDS, LOOK_SECONDS = 10.0, 2.0
CLOCKS = timedelta(minutes=1)
"""More than two clocks may differ by."""
FAULTS = 5  # reported per row
DETAILED_ROWS = 10_000
"""Rejected rows reported with all their faults; later ones are reported with one."""
FAULT_LENGTH = 100
MOST_SENT = 1_000
_GRANTS = uuid.UUID("b1f6f0de-4a0a-4d7f-8f57-6f6a7d1b0c2e")


def _number(value: Any) -> Any:
    """Accept numbers as people write them: `250 000`, `80,5`."""
    if not isinstance(value, str):
        return value
    found = numbers.number(value)
    if found is None:
        raise ValueError("not a number")
    return found


def moment(value: Any) -> datetime:
    """Accept an ISO 8601 time with its offset, or a date (midnight UTC)."""
    if not isinstance(value, str):
        raise ValueError("must be a string in ISO 8601")  # noqa: TRY004 - pydantic's way
    try:
        at = datetime.fromisoformat(value.strip())
        at.astimezone(UTC)  # the first and the last day may have no time there
    except (ValueError, OverflowError):
        raise ValueError("not a date or time in ISO 8601") from None
    if len(value.strip()) == len("2026-11-25"):
        at = datetime.combine(date.fromisoformat(value.strip()), time(), UTC)
    if at.tzinfo is None:
        raise ValueError("needs an offset from UTC")
    return at


def _phone(value: str) -> str:
    found = phone.canonical(value)
    if found is None or sum(char.isdigit() for char in found) < 7:
        raise ValueError("not a phone number")
    return found


def _start(value: str) -> str:
    describe_start(value, "en")  # raises if it is not a date
    return value


def _one_line(value: str) -> str:
    return " ".join(value.split())


_START = r"^(asap|20\d\d(-\d\d(-\d\d)?)?( [a-z0-9_]{1,40}){0,2})$"
"""The form in the list of leads: `2027-06 summer`."""
Words = Annotated[str, AfterValidator(_one_line)]
Number = BeforeValidator(_number)
Wish = Annotated[Words, Field(min_length=1, max_length=facts.WISH_LENGTH)]
Area = Annotated[float, Number, Field(ge=facts.MIN_AREA, le=facts.MAX_AREA)]
Budget = Annotated[float, Number, Field(ge=1, le=facts.MAX_BUDGET)]
Currency = Annotated[str, Field(pattern="^(PLN|EUR|USD|GBP)$")]
Start = Annotated[str, Field(pattern=_START), AfterValidator(_start)]


class LeadRow(Model):
    """One row of a file."""

    email: Annotated[str, Field(max_length=254), AfterValidator(normalise)]
    name: Annotated[Words, Field(max_length=200)] | None = None
    phone: Annotated[str, Field(max_length=40), AfterValidator(_phone)] | None = None
    language: Annotated[str, Field(pattern=f"^({'|'.join(LANGUAGES)})$")] | None = None
    wish: Annotated[Words, Field(max_length=facts.WISH_LENGTH)] | None = None
    area: Area | None = None
    budget: Budget | None = None
    currency: Currency | None = None
    start: Start | None = None
    consent_text: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    consent_at: Annotated[datetime, BeforeValidator(moment)] | None = None
    consent_source: Annotated[Words, Field(max_length=200)] | None = None
    consent_ip: Annotated[str, Field(max_length=45, pattern=r"^[0-9a-fA-F:.]+$")] | None = None
    consent_purpose: PurposeName = messages.MARKETING
    consent_channel: Channel = "email"
    withdrawn_at: Annotated[datetime, BeforeValidator(moment)] | None = None
    followup_number: Annotated[int, Field(ge=1, le=MOST_SENT, strict=False)] | None = None
    """A step of the sequence `default` that another system has sent."""
    followup_sent_at: Annotated[datetime, BeforeValidator(moment)] | None = None

    @model_validator(mode="after")
    def _an_agreement_has_its_evidence(self) -> Self:
        if (self.consent_text is None) != (self.consent_at is None):
            raise ValueError("consent_text and consent_at must be given together")
        if self.consent_text is None and (self.consent_source or self.consent_ip):
            raise ValueError("consent_source and consent_ip need consent_text")
        if self.consent_text is not None and self._whose is None:
            raise ValueError("consent_channel phone needs phone")
        if (self.followup_number is None) != (self.followup_sent_at is None):
            raise ValueError("followup_number and followup_sent_at must be given together")
        return self

    @property
    def _whose(self) -> str | None:
        return self.email if self.consent_channel == "email" else self.phone

    @property
    def contacts(self) -> list[str]:
        return [each for each in (self.email, self.phone) if each]

    def facts(self) -> Facts:
        budget = None if self.budget is None else round(self.budget)
        return Facts(
            email=self.email,
            phone=self.phone,
            name=self.name,
            area=self.area,
            budget=budget,
            currency=None if budget is None else self.currency or "PLN",
            start=self.start,
            wish=self.wish,
        )

    def declared(self) -> Iterator[tuple[uuid.UUID, str, dict[str, Any]]]:
        """Yield the commands to consent, each with its id, which is derived from the evidence."""
        if (grant := self.grant()) is not None:
            yield grant[0], messages.GRANT_RECORD, grant[1]
        if self.withdrawn_at is not None:
            proof = f"{self.email}\nwithdrawn\n{self.withdrawn_at.isoformat()}"
            body = messages.withdrawal_record(self.email, self.withdrawn_at, source="import")
            yield uuid.uuid5(_GRANTS, proof), messages.WITHDRAWAL_RECORD, body

    def grant(self) -> tuple[uuid.UUID, dict[str, Any]] | None:
        if self.consent_text is None or self.consent_at is None:
            return None
        purpose = pair(self.consent_purpose, self.consent_channel)
        proof = f"{self._whose}\n{self.consent_at.isoformat()}\n{self.consent_text}"
        if purpose != messages.MARKETING:
            proof += f"\n{purpose}"
        body = messages.grant_record(
            str(self._whose),
            purpose=purpose,
            wording=self.consent_text,
            at=self.consent_at,
            language=self.language,
            ip_address=self.consent_ip,
            ip_address_from="import" if self.consent_ip else None,
            source=f"import: {self.consent_source}" if self.consent_source else "import",
            place="import",
            proven=self.consent_source is not None,
        )
        return uuid.uuid5(_GRANTS, proof), body


COLUMNS = frozenset(LeadRow.model_fields)


@dataclass(frozen=True, slots=True)
class Imported:
    """A conversation that an import creates, without a chat."""

    email: str
    state: Mapping[str, Any]
    score: int


@dataclass(slots=True)
class Report:
    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    grants: int = 0
    to_confirm: int = 0
    """Grants that count only once the person confirms them by a mailed link."""
    withdrawals: int = 0
    followups: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Consent:
    """What consent says when it is asked."""

    requester: Requester
    marks: Erased
    """Of who was erased since it was asked."""

    async def without(self, rows: list[LeadRow]) -> list[LeadRow]:
        """Leave out the rows that name anyone who was ever erased.

        :raises Problem: 503 consent does not answer
        """
        try:
            named = {each for row in rows for each in row.contacts}
            found = await self._ask(messages.ERASED_REQUEST, named, ANSWER_SECONDS)
            erased = messages.ErasedAnswer.model_validate(found).erased
        except (NoReply, ValidationError):
            raise _later("consent does not say who was erased") from None
        return [row for row in rows if erased.isdisjoint(row.contacts)]

    async def marketing(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return how a lead's consent to marketing stands now, by channel of its contacts.

        It is `unknown` while consent does not answer.
        """
        contacts = {by: known[by] for by in ("email", "phone") if known.get(by)}
        if not contacts:
            return {}
        try:
            found = await self._ask(messages.STANDING_REQUEST, {*contacts.values()}, LOOK_SECONDS)
            purposes = messages.StandingAnswer.model_validate(found).purposes
        except (NoReply, ValidationError):
            return {by: {"state": "unknown", "since": None, "wording": None} for by in contacts}
        stands = {who: found.get(messages.MARKETING, {}) for who, found in purposes.items()}
        return {by: stands.get(who, {}).get(by) for by, who in contacts.items()}

    async def _ask(self, kind: str, contacts: set[str], seconds: float) -> dict[str, Any]:
        where, body = CONSENT_COMMANDS.name, messages.about(contacts)
        return await self.requester.ask(where, kind, kind, body, timeout=seconds)


async def take(
    engine: AsyncEngine, config: Config, consent: Consent, records: AsyncIterable[Record],
    act: Counted,
) -> Report:  # fmt: skip
    """Import every valid row, and count the imported ones for the record of acts.

    :raises Problem: 413 too many rows; 503 the broker is unavailable. Earlier batches stay
        imported, and the same file may be sent again.
    """
    report = Report()
    batch: list[LeadRow] = []
    async for record in records:
        if report.rows == MAX_ROWS:
            await _write(engine, config, consent, batch, report, act)
            raise Problem(
                413,
                detail=f"more than {MAX_ROWS} rows; rows before line {record.line} were imported",
            )
        report.rows += 1
        row = _read(record, report)
        if row is not None:
            batch.append(row)
        if len(batch) == BATCH:
            await _write(engine, config, consent, batch, report, act)
            batch = []
    await _write(engine, config, consent, batch, report, act)
    async with engine.begin() as tx:
        await act.end(tx)
    log.info("leads.imported", rows=report.rows, rejected=len(report.rejected))
    return report


def _read(record: Record, report: Report) -> LeadRow | None:
    if record.fault is None:
        try:
            return LeadRow.model_validate(record.fields)
        except ValidationError as error:
            shown = FAULTS if len(report.rejected) < DETAILED_ROWS else 1
            found = [_fault(*fault) for fault in faults(error, "row")[:shown]]
            if (more := error.error_count() - shown) > 0:
                found[-1]["message"] += f" (and {more} more in this row)"
    else:
        found = [_fault("row", record.fault)]
    report.rejected.append({"line": record.line, "errors": found})
    metrics.IMPORTED.labels("rejected").inc()
    return None


def _fault(field: str, message: str) -> dict[str, str]:
    return {"field": field[:FAULT_LENGTH], "message": message[:FAULT_LENGTH]}


async def _write(
    engine: AsyncEngine, config: Config, consent: Consent, given: list[LeadRow], report: Report,
    act: Counted,
) -> None:  # fmt: skip
    if not given:
        return
    await _outbox_has_room(engine)
    asked_at = datetime.now(UTC) - CLOCKS
    batch = await consent.without(given)
    async with engine.begin() as tx:
        named = [each for row in batch for each in Subject(row.email, row.phone).contacts]
        if await consent.marks.since(tx, named, asked_at):
            raise _later("somebody of this file has just been erased")
        locked = await run(tx, "lock_imported", emails=list({row.email for row in batch}))
        known = {row.email: Imported(*row) for row in locked}
        before = dict(known)
        for row in batch:
            known[row.email] = _learn(known.get(row.email), row, config)
        commands, declared = {}, {}
        for row in batch:
            for id_, kind, body in row.declared():
                commands[id_], declared[id_] = (kind, body), row.email
        for id_ in (await run(tx, "known_grants", ids=list(commands))).scalars():
            del commands[id_], declared[id_]
        news = set(declared.values())
        changed = [
            each for email, each in known.items() if each != before.get(email) or email in news
        ]
        await run(tx, "save_imported", imported=list(map(asdict, changed)))
        await run(tx, "keep_grants", ids=list(declared), emails=list(declared.values()))
        sent = {
            (row.email, row.followup_number): row.followup_sent_at
            for row in batch
            if row.followup_number
        }
        if sent:
            emails, numbers = map(list, zip(*sent, strict=True))
            added = await run(
                tx, "add_sent", name=enrolment.DEFAULT_SEQUENCE, emails=emails, numbers=numbers,
                times=list(sent.values()),
            )  # fmt: skip
            report.followups += added.rowcount
        await outbox.add_all(
            tx, [enrolment.command(kind, body, id_) for id_, (kind, body) in commands.items()]
        )
        await act.add(tx, len(batch))
    grants = [body for kind, body in commands.values() if kind == messages.GRANT_RECORD]
    created = sum(each.email not in before for each in changed)
    report.created += created
    report.updated += len(changed) - created
    report.unchanged += len(given) - len(changed)
    report.grants += len(grants)
    report.to_confirm += sum(not _is_proof(body, config) for body in grants)
    report.withdrawals += len(commands) - len(grants)
    metrics.IMPORTED.labels("taken").inc(len(batch))


def _is_proof(grant: Mapping[str, Any], config: Config) -> bool:
    is_dated = is_possible(datetime.fromisoformat(grant["at"]))
    wording = config.published(grant["wording"])
    return grant["proven"] and is_dated and bool(wording and wording.allows(grant["purpose"]))


def _learn(before: Imported | None, row: LeadRow, config: Config) -> Imported:
    state = State.of(before.state) if before else State()
    state = state._replace(
        facts=state.facts.learn(row.facts()),
        language=row.language or state.language or config.default_language,
    )
    score = lead_score.score(state.facts.known(), config.rules).points
    return Imported(row.email, state.stored(), score)


async def _outbox_has_room(engine: AsyncEngine) -> None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with engine.connect() as tx:
                    if await outbox.length(tx) < OUTBOX_FULL:
                        return
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise _later("the broker is unavailable") from None


def _later(why: str) -> Problem:
    detail = f"{why}; send the same file again later"
    return Problem(503, detail=detail, headers={"Retry-After": "60"})
