"""Routes that need the admin key: the trail, what is held on a person, erasure."""

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain, islice
from typing import Annotated, Any

from aiohttp import hdrs, web
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.addresses import normalise
from libs.common.requests import Requester
from libs.common.web import Model, Problem, json_response, parse
from services.consent import changes, checkpoints, export, trail
from services.consent.callers import Email, admin, operator, origin, path_address
from services.consent.checkpoints import Checkpoint, Signer, Witnesses
from services.consent.consent import HOLDERS, Action, ErasureStatus, Outcome
from services.consent.records import Records
from services.consent.replay import Replay
from services.consent.settings import ConsentSettings
from services.consent.store import consents, erasing, links, people
from services.consent.trail import Entry, Place
from services.consent.vault import Vault
from services.consent.withdrawals import Withdrawals, answered

VERIFY_SECONDS = 20.0  # half of what the gateway waits for an answer
MAX_CHECKPOINTS = 1_000
MAX_ERRORS = 10


class Erase(Model):
    email: Email


class Verify(Model):
    checkpoints: Annotated[list[Checkpoint], Field(max_length=MAX_CHECKPOINTS)]


class AdminRoutes:
    def __init__(
        self,
        engine: AsyncEngine,
        requester: Requester,
        vault: Vault,
        settings: ConsentSettings,
        withdrawals: Withdrawals,
        signer: Signer,
    ) -> None:
        self._engine = engine
        self._requester = requester
        self._vault = vault
        self._settings = settings
        self._withdrawals = withdrawals
        self._signer = signer
        self._replay = Replay(engine, vault, settings, withdrawals, requester)
        self._checkpoints = Records(settings.consent_records_dir / checkpoints.FILE)

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/consent/audit/verify", self.verify)
        app.router.add_post("/api/consent/audit/verify", self.verify)
        app.router.add_get("/api/consent/audit/checkpoints", self.checkpoints)
        app.router.add_get("/api/consent/audit/{email}", self.audit)
        app.router.add_get("/api/consent/export/{email}", self.export)
        app.router.add_post("/api/consent/erase", self.erase)
        app.router.add_post("/api/consent/replay-erasures", self.replay)

    async def audit(self, request: web.Request) -> web.Response:
        admin(request)
        email, after = path_address(request), _cursor(request)
        async with self._engine.begin() as tx:
            person = await people.find(tx, self._vault, normalise(email))
            entries = (
                await trail.entries(tx, person.id, person.key(self._vault), after=after)
                if person
                else []
            )
        more = len(entries) == trail.MAX_ENTRIES
        return json_response(
            {
                "email": email,
                "entries": entries,
                "next_cursor": str(entries[-1]["id"]) if more else None,
                "erasure": await self._erasure(email),
            }
        )

    async def _erasure(self, email: str) -> dict[str, Any] | None:
        address_hash = self._vault.suppression_hash(normalise(email))
        async with self._engine.begin() as tx:
            found = await erasing.find_erasure(tx, address_hash)
        if found is None:
            return None
        return {
            "status": found.status,
            "requested_at": found.requested_at.isoformat(),
            "confirmed_at": found.confirmed_at and found.confirmed_at.isoformat(),
            "finished_at": found.finished_at and found.finished_at.isoformat(),
            "due_at": found.due_at.isoformat(),
            "waiting_for": [name for name in HOLDERS if name not in found.receipts]
            if found.status is ErasureStatus.IN_PROGRESS
            else [],
        }

    async def verify(self, request: web.Request) -> web.Response:
        """Verify for as long as an answer may take; a long trail is gone through in some calls.

        By POST the caller adds checkpoints of its own keeping to those that are kept here.
        """
        admin(request)
        theirs: list[Checkpoint] = []
        if request.method == hdrs.METH_POST:
            theirs = (await parse(request, Verify)).checkpoints
            self._check_signatures(theirs)
        seen = chain(checkpoints.read(self._checkpoints), theirs)
        witnesses = await asyncio.to_thread(Witnesses, seen, self._signer)
        found = await trail.verify(
            self._engine, start=_place(request), seconds=VERIFY_SECONDS, witnesses=witnesses
        )
        return json_response(checkpoints.report(found, witnesses))

    def _check_signatures(self, theirs: Iterable[Checkpoint]) -> None:
        forged = [
            (f"checkpoints.{index}.signature", "not of a key of ours")
            for index, each in enumerate(theirs)
            if not self._signer.is_ours(each)
        ]
        if forged:
            raise Problem(422, errors=forged[:MAX_ERRORS])

    async def checkpoints(self, request: web.Request) -> web.Response:
        """Hand out checkpoints, oldest first, for the caller to keep out of our reach."""
        admin(request)
        after = _cursor(request)
        found = await asyncio.to_thread(
            lambda: list(
                islice(checkpoints.read(self._checkpoints), after, after + MAX_CHECKPOINTS)
            )
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
        """Gather what all services hold (Art. 15, 20), and record that it was handed out."""
        admin(request)
        email = path_address(request)
        address = normalise(email)
        others, incomplete = await export.gather(
            self._requester, address, self._settings.export_seconds
        )
        evidence = operator(request) | ({"incomplete": incomplete} if incomplete else {})
        entry = Entry(Action.EXPORT, email, origin(request), evidence=evidence)
        held: dict[str, Any] = {"consents": {}, "entries": [], "waiting_opt_ins": []}
        async with self._engine.begin() as tx:
            # Somebody of whom nothing is held does not become known by the question.
            known = any(records for found in others.values() for records in found.values())
            person = (
                await people.enter(tx, self._vault, address, people.Lock.CHANGE)
                if known
                else await people.find(tx, self._vault, address, people.Lock.CHANGE)
            )
            suppressed = self._vault.suppression_hash(address)
            held |= await people.held(tx, person.id if person else None, suppressed)
            if person is not None:
                key = person.key(self._vault)
                held["consents"] = await consents.states(tx, self._vault.address_hash(address))
                held["waiting_opt_ins"] = [
                    {"asked_at": at.isoformat(), "agreement": key.decrypt("agreement", sealed)}
                    for at, sealed in await links.waiting_agreements(tx, person.id)
                ]
                while page := await trail.entries(
                    tx, person.id, key, after=held["entries"][-1]["id"] if held["entries"] else 0
                ):
                    held["entries"] += page
                await trail.append(tx, [(person.id, key, entry)])
        held["erasure"] = await self._erasure(email)
        return json_response(
            {"email": email, "services": {"consent": held, **others}, "incomplete": incomplete}
        )

    async def erase(self, request: web.Request) -> web.Response:
        """Erase a person; asked again while it is under way, tell the other services again."""
        admin(request)
        body = await parse(request, Erase)
        outcome, in_flight = Outcome.DONE, 0
        if not await self._told_again(normalise(body.email)):
            entry = Entry(
                action=Action.ERASURE_REQUESTED,
                email=body.email,
                origin=origin(request),
                evidence=operator(request),
            )
            outcome, in_flight = await self._withdrawals.erase(entry)
        status = (
            ErasureStatus.IN_PROGRESS
            if outcome is Outcome.DONE
            else ErasureStatus.AWAITING_CONFIRMATION
        )
        answer = {"success": True, "email": body.email, "erasure": {"status": status}}
        return answered(answer, outcome, in_flight)

    async def replay(self, request: web.Request) -> web.Response:
        """Erase again whom a restored backup knows; 202: not yet all, ask again."""
        admin(request)
        evidence = {"source": "replay", **operator(request)}

        def entry(email: str) -> Entry:
            return Entry(Action.ERASURE_REQUESTED, email, origin(request), evidence=evidence)

        done = await self._replay.run(entry)
        return json_response(asdict(done), status=200 if done.done else 202)

    async def _told_again(self, address: str) -> bool:
        """Repeat an erasure's orders; the address is not known here any more, but given again."""
        async with self._engine.begin() as tx:
            if await people.find(tx, self._vault, address) is not None:
                return False
            found = await erasing.find_erasure(tx, self._vault.suppression_hash(address))
            if found is None or found.status is not ErasureStatus.IN_PROGRESS:
                return False
            await changes.give_order(tx, self._vault, address, found.id)
        return True


def _cursor(request: web.Request) -> int:
    given = request.query.get("cursor", "0")
    if not given.isdecimal() or len(given) > 18:
        raise Problem(422, errors=[("cursor", "not a cursor of this list")])
    return int(given)


def _place(request: web.Request) -> Place:
    if (given := request.query.get("cursor")) is None:
        return trail.START
    try:
        return Place.parse(given)
    except ValueError:
        raise Problem(422, errors=[("cursor", "not a cursor of this verification")]) from None
