"""Routes that need the admin key: the trail, exports, erasure."""

import asyncio
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time
from typing import Annotated, Any
from uuid import UUID

from aiohttp import hdrs, web
from pydantic import AwareDatetime, Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.http.application import Model, Problem, json_response, only, parse
from libs.common.messaging.broker import BrokerUnavailable
from libs.common.messaging.rpc import Requester
from libs.common.plain import plain
from libs.domain import acts_outbox, company
from libs.domain.company import Channel, PurposeName, pair
from services.consent import erasure_orders, export, standing
from services.consent.changes import Note
from services.consent.dead_letters import SubjectDeadLetters
from services.consent.http.caller import (
    UNKNOWN,
    Named,
    look,
    note_of,
    operator,
    origin,
    path_subject,
    withdrawal_response,
)
from services.consent.recovery.replay import Replay
from services.consent.recovery.withdrawals import Answer, Withdrawals
from services.consent.rules import (
    HOLDERS,
    MARKETING,
    Action,
    ErasureStatus,
    Subject,
    WithdrawalResult,
)
from services.consent.settings import ConsentSettings
from services.consent.store import consents, data_subjects
from services.consent.store.data_subjects import Lock, SubjectRow, parse_subject
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.trail import chain, checkpoints
from services.consent.trail.chain import START, Entry, Position
from services.consent.trail.checkpoints import Checkpoint, Witnesses

NOBODY = "0" * 32
"""Before every subject's id."""
VERIFY_SECONDS = 20.0  # half of what the gateway waits for an answer
MAX_CHECKPOINTS = 1_000
MAX_ERRORS = 10
MAX_AWAITING = 100
HELD = (
    "states", "restrictions", "permits", "preferences", "undeliverable", "suppressions",
    "link_mails", "erasures",
)  # fmt: skip
BEGUN = ("person.erase", "intended")
"""The record of an erasure: it may still wait, and the trail says when it is done."""


class Restrict(Named):
    lifted: bool = False


class Report(Model):
    """A report that is complete: its hash goes into the trail."""

    purpose: PurposeName
    channel: Channel
    at: AwareDatetime
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    people: int = Field(ge=0)


class Verify(Model):
    checkpoints: Annotated[list[Checkpoint], Field(max_length=MAX_CHECKPOINTS)]


@dataclass
class AdminRoutes:
    engine: AsyncEngine
    requester: Requester
    vault: Vault
    settings: ConsentSettings
    withdrawals: Withdrawals
    dead_letters: SubjectDeadLetters

    def __post_init__(self) -> None:
        self._company = company.load(self.settings.company_config)
        self._signer = self.settings.signer()

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            (hdrs.METH_GET, "/api/consent/audit/verify", self.verify),
            (hdrs.METH_POST, "/api/consent/audit/verify", self.verify),
            (hdrs.METH_GET, "/api/consent/audit/checkpoints", self.checkpoints),
            (hdrs.METH_GET, "/api/consent/audit/{email}", self.audit),
            (hdrs.METH_GET, "/api/consent/export/{email}", self.export),
            (hdrs.METH_GET, "/api/consent/report", self.report),
            (hdrs.METH_POST, "/api/consent/report", self.sign_report),
            (hdrs.METH_GET, "/api/consent/erasures", self.erasures),
            (hdrs.METH_GET, "/api/consent/erasures/awaiting", self.awaiting),
            (hdrs.METH_POST, "/api/consent/erasures/dismiss", self.dismiss),
            (hdrs.METH_POST, "/api/consent/erase", self.erase),
            (hdrs.METH_POST, "/api/consent/restrict", self.restrict),
            (hdrs.METH_POST, "/api/consent/replay-erasures", self.replay),
        ):
            app.router.add_route(method, path, only("admin", handler))

    async def audit(self, request: web.Request) -> web.Response:
        (given, subject), after = path_subject(request), _cursor(request)
        async with self.engine.begin() as tx:
            row = await data_subjects.find(tx, self.vault, subject.identity)
            entries = (
                await chain.entries(tx, row.id, row.key(self.vault), after=after) if row else []
            )
            await look(tx, request, row)
            restricted = row and await data_subjects.restricted(tx, row.id)
        more = len(entries) == chain.MAX_ENTRIES
        return json_response(
            {
                "email": given,
                "subject": row and str(row.id),
                "entries": entries,
                "next_cursor": str(entries[-1]["id"]) if more else None,
                "erasure": await self._erasure(subject),
                "restricted_since": restricted and restricted.since,
            }
        )

    async def erasures(self, _: web.Request) -> web.Response:
        found = (await run.alone(self.engine, "open_erasures")).one()
        return json_response(found._asdict())

    async def awaiting(self, request: web.Request) -> web.Response:
        """List requests that nobody has confirmed by the mailed link: a person must answer them."""
        items = []
        async with self.engine.begin() as tx:
            for each in await run(tx, "awaiting", batch=MAX_AWAITING):
                row = await data_subjects.find_by_id(tx, each.subject)
                await look(tx, request, row)
                email = row and await chain.last_email(tx, row.id, row.key(self.vault))
                items.append({"email": email, **each._asdict()})
        return json_response({"items": items})

    async def dismiss(self, request: web.Request) -> web.Response:
        """End a request that waits for its confirmation; its mailed link becomes void."""
        subject = parse_subject((await parse(request, Named)).given)
        async with self.engine.begin() as tx:
            row = await data_subjects.find(tx, self.vault, subject.identity, Lock.CHANGE)
            if row is None or not (await run(tx, "dismiss", subject=row.id)).rowcount:
                raise Problem(404, detail="no request for erasure waits for its confirmation")
            await note_of(request, "person.dismiss")(tx, row.id)
        return json_response({"dismissed": True})

    async def report(self, request: web.Request) -> web.Response:
        """List who had agreed to a purpose by a channel at that time, page by page."""
        query = request.query
        try:
            at = datetime.fromisoformat(query["at"])
            at = at if at.tzinfo else datetime.combine(at, time.max, UTC)
            after = UUID(query.get("cursor") or NOBODY)
        except (KeyError, ValueError):
            raise Problem(422, errors=[("at", "a date, or a time with its offset")]) from None
        purpose = pair(query.get("purpose", ""), query.get("channel", "email"))
        if purpose not in {MARKETING, *self._company.pairs}:
            raise Problem(422, errors=[("purpose", "not one of [purposes] in company.toml")])
        async with self.engine.begin() as tx:
            found, cursor = await standing.had_agreed(tx, self.vault, purpose, at, after)
            await acts_outbox.record(tx, request, "person.export", "person", f"report {purpose}")
        return json_response({"items": found, "next_cursor": cursor, "at": at})

    async def sign_report(self, request: web.Request) -> web.Response:
        """Sign a report's hash, and keep it in the trail."""
        body = await parse(request, Report)
        about = body.model_dump(mode="json")
        signed = json.dumps(about, sort_keys=True, separators=(",", ":"))
        signature = self._signer.sign_text(f"ostoja consent report\n{signed}\n")
        async with self.engine.begin() as tx:
            row = await data_subjects.get_or_create(tx, self.vault, "report", Lock.CHANGE)
            evidence = {"report": about, **signature, **operator(request)}
            entry = Entry(Action.EXPORT, "report", origin(request), evidence=evidence)
            await chain.append(tx, row.id, row.key(self.vault), entry)
        return json_response({"report": about, "signed": signed, **signature})

    async def _erasure(self, subject: Subject) -> dict[str, Any] | None:
        hashed = self.vault.suppression_hash(subject.identity)
        found = (await run.alone(self.engine, "find_erasure", hash=hashed)).one_or_none()
        if found is None:
            return None
        shown: dict[str, Any] = found._asdict()
        del shown["id"], shown["receipts"]
        waits = HOLDERS if found.status == ErasureStatus.IN_PROGRESS else ()
        return shown | {"waiting_for": [name for name in waits if name not in found.receipts]}

    async def verify(self, request: web.Request) -> web.Response:
        """Verify for as long as an answer may take; a long trail takes several calls.

        With POST the caller adds its own copies of checkpoints to those stored here.
        """
        theirs: list[Checkpoint] = []
        if request.method == hdrs.METH_POST:
            theirs = (await parse(request, Verify)).checkpoints
            self._check_signatures(theirs)
        seen = itertools.chain(self.settings.checkpoint_file.read(Checkpoint), theirs)
        witnesses = await asyncio.to_thread(Witnesses, seen, self._signer)
        found = await chain.verify(
            self.engine, start=_position(request), seconds=VERIFY_SECONDS, witnesses=witnesses
        )
        return json_response(checkpoints.report(found, witnesses))

    def _check_signatures(self, theirs: Iterable[Checkpoint]) -> None:
        forged = [
            (f"checkpoints.{index}.signature", "not a signature of one of our keys")
            for index, each in enumerate(theirs)
            if not self._signer.is_ours(each)
        ]
        if forged:
            raise Problem(422, errors=forged[:MAX_ERRORS])

    async def checkpoints(self, request: web.Request) -> web.Response:
        """Return checkpoints, oldest first, for the caller to keep elsewhere."""
        after = _cursor(request)
        kept = self.settings.checkpoint_file.read(Checkpoint)
        found = await asyncio.to_thread(
            lambda: list(itertools.islice(kept, after, after + MAX_CHECKPOINTS))
        )
        more = len(found) == MAX_CHECKPOINTS
        return json_response(
            {
                "checkpoints": [each.model_dump(mode="json") for each in found],
                "next_cursor": str(after + len(found)) if more else None,
                "public_keys": self._signer.public_keys,
            }
        )

    async def export(self, request: web.Request) -> web.Response:
        return json_response(await self._export(request, *path_subject(request)))

    async def _export(self, request: web.Request, given: str, subject: Subject) -> dict[str, Any]:
        """Gather what all services store (Art. 15, 20), and record the export in the trail."""
        identity = subject.identity
        seconds = self.settings.export_seconds
        others, incomplete = await export.gather(self.requester, subject, seconds)
        held: dict[str, Any] = {"consents": {}, "entries": [], "waiting_opt_ins": []}
        try:
            held["dead_letters"] = await self.dead_letters.naming(identity)
        except BrokerUnavailable:
            incomplete.append("consent")
        evidence = operator(request) | ({"incomplete": incomplete} if incomplete else {})
        entry = Entry(Action.EXPORT, given, origin(request), evidence=evidence)
        async with self.engine.begin() as tx:
            # An export that finds nothing does not make the subject known.
            known = bool(held.get("dead_letters")) or any(
                records for found in others.values() for records in found.values()
            )
            find = data_subjects.get_or_create if known else data_subjects.find
            row = await find(tx, self.vault, identity, Lock.CHANGE)
            # What the hash finds may outlive the subject's row.
            whose = {"subject": row and row.id, "hash": self.vault.suppression_hash(identity)}
            for kind in HELD:
                held[kind] = [each._asdict() for each in await run(tx, f"held_{kind}", **whose)]
            if row is not None:
                held["consents"] = await consents.states(tx, self.vault.lookup_hash(identity))
                held |= await self._sealed_data(tx, row)
                await chain.append(tx, row.id, row.key(self.vault), entry)
            ref = str(row.id) if row is not None else UNKNOWN
            await acts_outbox.record(tx, request, "person.export", "person", ref)
        held["erasure"] = await self._erasure(subject)
        services = {"consent": held, **others}
        about = {"processing": self._company.processing}
        return {"email": given, **about, "services": services, "incomplete": incomplete}

    async def _sealed_data(self, tx: AsyncConnection, row: SubjectRow) -> dict[str, Any]:
        key = row.key(self.vault)
        entries: list[dict[str, Any]] = []
        while page := await chain.entries(
            tx, row.id, key, after=entries[-1]["id"] if entries else 0
        ):
            entries += page
        waiting = [
            {"asked_at": at, "agreement": key.decrypt("agreement", sealed)}
            for _, at, sealed in await run(tx, "waiting_agreements", subject=row.id)
        ]
        restricted = await data_subjects.restricted(tx, row.id)
        kept = restricted and key.decrypt("restriction", restricted.kept)
        found = {"entries": entries, "waiting_opt_ins": waiting}
        return found | {"kept_while_restricted": json.loads(kept or "null")}

    async def erase(self, request: web.Request) -> web.Response:
        """Erase a data subject; while that is in progress, a second call repeats the order."""
        body = await parse(request, Named)
        given = body.given
        answer = Answer(WithdrawalResult.DONE)
        subject = parse_subject(given)
        note = note_of(request, *BEGUN)
        if not await self._order_repeated(subject.identity, note):
            entry = Entry(
                Action.ERASURE_REQUESTED, given, origin(request), evidence=operator(request)
            )
            answer = await self.withdrawals.erase(entry, note)
        status = (
            ErasureStatus.IN_PROGRESS
            if answer.result is WithdrawalResult.DONE
            else ErasureStatus.AWAITING_CONFIRMATION
        )
        shown = {"success": True, "email": given, "erasure": {"status": status}}
        return withdrawal_response(shown, answer)

    async def restrict(self, request: web.Request) -> web.Response:
        """Restrict the processing (Art. 18), or lift that: until then nothing is sent or erased.

        What retention deletes in any service during it is kept as an export, sealed with the
        subject's key. If a service did not answer, repeat the call.
        """
        body = await parse(request, Restrict)
        subject, incomplete = parse_subject(body.given), []
        note = note_of(request, "person.unrestrict" if body.lifted else "person.restrict")
        async with self.engine.begin() as tx:  # from here on no permit is granted
            row = await data_subjects.get_or_create(tx, self.vault, subject.identity, Lock.CHANGE)
            await run(tx, "lift" if body.lifted else "restrict", subject=row.id)
            await note(tx, row.id)
        if not body.lifted:
            held = await self._export(request, body.given, subject)
            if not (incomplete := held["incomplete"]):
                kept = row.key(self.vault).encrypt("restriction", json.dumps(held, default=plain))
                await run.alone(self.engine, "keep", subject=row.id, kept=kept)
        shown = {"success": True, "email": body.given, "restricted": not body.lifted}
        return json_response(shown | {"incomplete": incomplete})

    async def _order_repeated(self, identity: str, note: Note) -> bool:
        """Repeat the order of an erasure in progress; the subject is no longer known here."""
        async with self.engine.begin() as tx:
            if await data_subjects.find(tx, self.vault, identity) is not None:
                return False
            hashed = self.vault.suppression_hash(identity)
            found = (await run(tx, "find_erasure", hash=hashed)).one_or_none()
            if found is None or found.status != ErasureStatus.IN_PROGRESS:
                return False
            if not await erasure_orders.repeat(tx, self.vault, found.id):
                return False
            await note(tx, None)  # this service has forgotten who was erased
            return True

    async def replay(self, request: web.Request) -> web.Response:
        """Repeat the erasures that a restored backup has undone; after a 202, call again."""
        evidence = {"source": "replay", **operator(request)}

        def entry(email: str) -> Entry:
            return Entry(Action.ERASURE_REQUESTED, email, origin(request), evidence=evidence)

        replay = Replay(self.engine, self.vault, self.settings, self.withdrawals, self.requester)
        replayed = await replay.run(entry, note_of(request, *BEGUN))
        return json_response(asdict(replayed), status=200 if replayed.done else 202)


def _cursor(request: web.Request) -> int:
    given = request.query.get("cursor", "0")
    if not given.isdecimal() or len(given) > 18:
        raise Problem(422, errors=[("cursor", "not a cursor of this list")])
    return int(given)


def _position(request: web.Request) -> Position:
    if (given := request.query.get("cursor")) is None:
        return START
    try:
        return Position.parse(given)
    except ValueError:
        raise Problem(422, errors=[("cursor", "not a cursor of this verification")]) from None
