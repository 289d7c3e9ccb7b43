"""Routes that need the admin key: the trail, what is held on a person, erasure."""

from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.addresses import normalise
from libs.common.requests import Requester
from libs.common.web import Model, Problem, json_response, parse
from services.consent import changes, export, store, trail
from services.consent.callers import Email, admin, operator, origin, path_address
from services.consent.consent import HOLDERS, Action, ErasureStatus, Outcome
from services.consent.settings import ConsentSettings
from services.consent.trail import Entry
from services.consent.vault import Vault
from services.consent.withdrawals import Withdrawals, answered


class Erase(Model):
    email: Email


class AdminRoutes:
    def __init__(
        self,
        engine: AsyncEngine,
        requester: Requester,
        vault: Vault,
        settings: ConsentSettings,
        withdrawals: Withdrawals,
    ) -> None:
        self._engine = engine
        self._requester = requester
        self._vault = vault
        self._settings = settings
        self._withdrawals = withdrawals

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/consent/audit/verify", self.verify)
        app.router.add_get("/api/consent/audit/{email}", self.audit)
        app.router.add_get("/api/consent/export/{email}", self.export)
        app.router.add_post("/api/consent/erase", self.erase)

    async def audit(self, request: web.Request) -> web.Response:
        admin(request)
        email, after = path_address(request), _cursor(request)
        async with self._engine.begin() as tx:
            person = await store.find(tx, self._vault, normalise(email))
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
            found = await store.find_erasure(tx, address_hash)
        if found is None:
            return None
        return {
            "status": found.status,
            "requested_at": found.requested_at.isoformat(),
            "confirmed_at": found.confirmed_at and found.confirmed_at.isoformat(),
            "finished_at": found.finished_at and found.finished_at.isoformat(),
            "waiting_for": [name for name in HOLDERS if name not in found.receipts]
            if found.status is ErasureStatus.IN_PROGRESS
            else [],
        }

    async def verify(self, request: web.Request) -> web.Response:
        admin(request)
        found = await trail.verify(self._engine)
        return json_response(
            {"ok": found.ok, "rows": found.rows, "first_broken": found.first_broken}
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
        held: dict[str, Any] = {"consents": {}, "entries": [], "erasure": None}
        async with self._engine.begin() as tx:
            # Somebody of whom nothing is held does not become known by the question.
            known = any(records for found in others.values() for records in found.values())
            person = (
                await store.enter(tx, self._vault, address, store.Lock.CHANGE)
                if known
                else await store.find(tx, self._vault, address, store.Lock.CHANGE)
            )
            if person is not None:
                key = person.key(self._vault)
                held["consents"] = await store.states(tx, self._vault.address_hash(address))
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

    async def _told_again(self, address: str) -> bool:
        """Repeat an erasure's orders; the address is not known here any more, but given again."""
        async with self._engine.begin() as tx:
            if await store.find(tx, self._vault, address) is not None:
                return False
            found = await store.find_erasure(tx, self._vault.suppression_hash(address))
            if found is None or found.status is not ErasureStatus.IN_PROGRESS:
                return False
            await changes.order(tx, address, found.id)
        return True


def _cursor(request: web.Request) -> int:
    given = request.query.get("cursor", "0")
    if not given.isdecimal() or len(given) > 18:
        raise Problem(422, errors=[("cursor", "not a cursor of this list")])
    return int(given)
