"""Routes: parse, call, answer. The gateway has checked keys; it says who calls in X-Caller."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, Field
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db
from libs.common.addresses import MalformedAddress, normalise
from libs.common.broker import Broker
from libs.common.requests import Requester
from libs.common.tokens import Claims, InvalidToken, Tokens
from libs.common.web import (
    CALLER,
    CLIENT_ADDRESS,
    Model,
    Problem,
    json_response,
    parse,
    unavailable_when,
)
from services.consent import changes, export, pages, permits, store, trail
from services.consent.changes import AskForProof, Withdrawal, Wording
from services.consent.consent import (
    HOLDERS,
    LANGUAGES,
    PURPOSES,
    Action,
    ErasureStatus,
    Outcome,
    State,
    preferred_language,
)
from services.consent.settings import ConsentSettings
from services.consent.trail import Entry, Origin
from services.consent.vault import Vault

HEALTH_SECONDS = 2.0
UNSUBSCRIBE_TOKEN = "unsubscribe"  # noqa: S105 - the action that a mailed link allows
ERASURE_TOKEN = "erasure"  # noqa: S105 - likewise
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
ONE_CLICK = ("List-Unsubscribe", "One-Click")


def _address(text: str) -> str:
    normalise(text)
    return text


Email = Annotated[str, Field(max_length=254), AfterValidator(_address)]
Reason = Annotated[str, Field(max_length=2_000)]
SessionId = Annotated[str, Field(min_length=1, max_length=200)]


class Unsubscribe(Model):
    email: Email
    reason: Reason | None = None
    session_id: SessionId | None = None


class Revoke(Model):
    email: Email
    reason: Reason | None = None


class OptIn(Model):
    email: Email
    text: Annotated[str, Field(min_length=1, max_length=10_000)]
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] | None = None
    source: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    session_id: SessionId | None = None


class Erase(Model):
    email: Email


class Routes:
    def __init__(
        self,
        engine: AsyncEngine,
        broker: Broker,
        requester: Requester,
        vault: Vault,
        tokens: Tokens,
        settings: ConsentSettings,
        stopping: asyncio.Event,
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._requester = requester
        self._vault = vault
        self._tokens = tokens
        self._settings = settings
        self._stopping = stopping

    def add_to(self, app: web.Application) -> None:
        app.middlewares.append(unavailable_when(db.may_pass))
        app.router.add_post("/api/opt-in", self.opt_in)
        app.router.add_post("/api/unsubscribe", self.unsubscribe)
        app.router.add_post("/api/revoke-consent", self.revoke)
        app.router.add_get("/api/unsubscribe/status/{email}", self.status)
        app.router.add_get("/unsubscribe", self.unsubscribe_page)
        app.router.add_post("/unsubscribe", self.unsubscribe_by_link)
        app.router.add_get("/erasure/confirm", self.erasure_page)
        app.router.add_post("/erasure/confirm", self.erase_by_link)
        app.router.add_get("/api/consent/audit/verify", self.verify)
        app.router.add_get("/api/consent/audit/{email}", self.audit)
        app.router.add_get("/api/consent/export/{email}", self.export)
        app.router.add_post("/api/consent/erase", self.erase)
        app.router.add_get("/health/deep", self.health)

    async def opt_in(self, request: web.Request) -> web.Response:
        body = await parse(request, OptIn)
        entry = Entry(
            action=Action.OPT_IN,
            email=body.email,
            origin=_origin(request),
            session_id=body.session_id,
        )
        wording = Wording(body.text, body.language, body.source or "api")
        async with self._engine.begin() as tx:
            await changes.grant(tx, self._vault, entry, wording)
        return json_response({"success": True, "email": body.email})

    async def unsubscribe(self, request: web.Request) -> web.Response:
        body = await parse(request, Unsubscribe)
        entry = Entry(
            action=Action.UNSUBSCRIBE,
            email=body.email,
            origin=_origin(request),
            reason=body.reason,
            session_id=body.session_id,
            evidence={"source": "api"},
        )
        _, outcome, in_flight = await self._withdraw(entry)
        return _withdrawn(
            {"success": True, "email": body.email, "unsubscribed": True}, outcome, in_flight
        )

    async def revoke(self, request: web.Request) -> web.Response:
        body = await parse(request, Revoke)
        entry = Entry(
            action=Action.REVOKE,
            email=body.email,
            origin=_origin(request),
            reason=body.reason,
            evidence={"source": "api"},
        )
        _, outcome, in_flight = await self._withdraw(
            entry, erase=True, ask_for_proof=self._asking(_language(request))
        )
        # Anybody may ask for any address: known or not, erased or not, they all hear the same.
        answer = {
            "success": True,
            "email": body.email,
            "consents_revoked": list(PURPOSES),
            "erasure": {"status": ErasureStatus.AWAITING_CONFIRMATION},
        }
        if _trusted(request) and (found := await self._erasure(body.email)):
            answer["erasure"] = {"status": found["status"]}
        return _withdrawn(answer, outcome, in_flight)

    def _asking(self, language: str) -> AskForProof:
        def mail(address: str, erasure_id: UUID) -> dict[str, Any]:
            # For one request only: a link that was used, or is of before, erases nobody anew.
            token = self._tokens.sign(address, str(erasure_id), ERASURE_TOKEN, datetime.now(UTC))
            link = f"{self._settings.public_base_url.rstrip('/')}/erasure/confirm?token={token}"
            return {"to": address, **pages.mail("erasure_mail", language, link=link)}

        return mail

    async def _withdraw(
        self, entry: Entry, *, erase: bool = False, ask_for_proof: AskForProof | None = None
    ) -> tuple[Withdrawal, Outcome, int]:
        async with self._engine.begin() as tx:
            withdrawal = await changes.withdraw(
                tx,
                self._vault,
                entry,
                suppression_days=self._settings.suppression_retention_days,
                erase=erase,
                ask_for_proof=ask_for_proof,
            )
        outcome, in_flight = await permits.settled(
            self._engine,
            withdrawal,
            patience=self._settings.withdrawal_wait_seconds,
            quarantine=self._settings.permit_quarantine_seconds,
            stopping=self._stopping,
        )
        return withdrawal, outcome, in_flight

    async def _erase(self, entry: Entry) -> tuple[Outcome, int]:
        """Withdraw, wait for permits as any withdrawal does, then forget the person.

        While a permit is out nobody is forgotten yet.
        """
        withdrawal, outcome, in_flight = await self._withdraw(entry, erase=True)
        if outcome is not Outcome.DONE:
            return outcome, in_flight
        erased = replace(entry, action=Action.ERASED)
        async with self._engine.begin() as tx:
            status = await changes.erase(tx, self._vault, erased, withdrawal)
        return Outcome.DONE if status else Outcome.SUPERSEDED, in_flight

    async def status(self, request: web.Request) -> web.Response:
        email = _path_address(request)
        address = normalise(email)
        full = _trusted(request) or self._holds_link(request, address)
        async with self._engine.begin() as tx:
            states = await store.states(tx, self._vault.address_hash(address))
            person = await store.find(tx, self._vault, address) if full else None
            last = await trail.last(tx, person.id) if person else None
        consents = {purpose: states.get(purpose) is State.GRANTED for purpose in PURPOSES}
        return json_response(
            {
                "email": email if full else None,
                "unsubscribed": State.WITHDRAWN in states.values(),
                "consents": consents if full else None,
                "last_action": last and last[0],
                "last_action_at": last and last[1].isoformat(),
            }
        )

    def _holds_link(self, request: web.Request, address: str) -> bool:
        claims = self._claims(request)
        return claims is not None and normalise(claims.subject) == address

    def _claims(
        self,
        request: web.Request,
        action: str = UNSUBSCRIBE_TOKEN,
        max_age: timedelta | None = None,
    ) -> Claims | None:
        token = request.query.get("token", "")
        try:
            return self._tokens.verify(token, action, datetime.now(UTC), max_age)
        except InvalidToken:
            return None

    async def unsubscribe_page(self, request: web.Request) -> web.Response:
        """Ask. Scanners of mail fetch every link: GET and HEAD change nothing."""
        claims = self._claims(request)
        if claims is None:
            return _page(request, "invalid", status=400)
        return _page(request, "unsubscribe", claims)

    async def unsubscribe_by_link(self, request: web.Request) -> web.Response:
        """Act on the page's button, or on a mailbox provider's one-click post (RFC 8058)."""
        claims = self._claims(request)
        if claims is None:
            return _page(request, "invalid", status=400)
        form = await _form(request)
        one_click = form.get(ONE_CLICK[0]) == ONE_CLICK[1]
        entry = Entry(
            action=Action.UNSUBSCRIBE,
            email=claims.subject,
            origin=_origin(request),
            evidence={"source": "one-click" if one_click else "page"},
        )
        _, outcome, _ = await self._withdraw(entry)
        return _page(request, outcome, claims, status=_STATUS[outcome])

    async def erasure_page(self, request: web.Request) -> web.Response:
        """Ask; change nothing."""
        name, claims = await self._erasure_link(request)
        if claims is None:
            return _page(request, name, status=_LINK_STATUS[name])
        return _page(request, name, claims)

    async def erase_by_link(self, request: web.Request) -> web.Response:
        name, claims = await self._erasure_link(request)
        if claims is None:
            return _page(request, name, status=_LINK_STATUS[name])
        await _form(request)
        entry = Entry(
            action=Action.ERASURE_REQUESTED,
            email=claims.subject,
            origin=_origin(request),
            evidence={"source": "link"},
        )
        outcome, _ = await self._erase(entry)
        return _page(request, f"erasure_{outcome}", claims, status=_STATUS[outcome])

    async def _erasure_link(self, request: web.Request) -> tuple[str, Claims | None]:
        """Say which page the link leads to, with its claims if it may still be used."""
        age = timedelta(hours=self._settings.erasure_link_hours)
        claims = self._claims(request, ERASURE_TOKEN, age)
        if claims is None:
            return "erasure_invalid", None
        async with self._engine.begin() as tx:
            person = await store.find(tx, self._vault, claims.subject)
            erasure_id = UUID(claims.purpose)
            if person and await store.awaits_confirmation(tx, erasure_id, person.id):
                return "erasure", claims
        return "erasure_used", None

    async def audit(self, request: web.Request) -> web.Response:
        _admin(request)
        email, after = _path_address(request), _cursor(request)
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
        _admin(request)
        found = await trail.verify(self._engine)
        return json_response(
            {"ok": found.ok, "rows": found.rows, "first_broken": found.first_broken}
        )

    async def export(self, request: web.Request) -> web.Response:
        """Gather what all services hold (Art. 15, 20), and record that it was handed out."""
        _admin(request)
        email = _path_address(request)
        address = normalise(email)
        others, incomplete = await export.gather(
            self._requester, address, self._settings.export_seconds
        )
        evidence = _operator(request) | ({"incomplete": incomplete} if incomplete else {})
        entry = Entry(Action.EXPORT, email, _origin(request), evidence=evidence)
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
                await trail.append(tx, person.id, key, entry)
        held["erasure"] = await self._erasure(email)
        return json_response(
            {"email": email, "services": {"consent": held, **others}, "incomplete": incomplete}
        )

    async def erase(self, request: web.Request) -> web.Response:
        """Erase a person; asked again while it is under way, tell the other services again."""
        _admin(request)
        body = await parse(request, Erase)
        outcome, in_flight = Outcome.DONE, 0
        if not await self._told_again(normalise(body.email)):
            entry = Entry(
                action=Action.ERASURE_REQUESTED,
                email=body.email,
                origin=_origin(request),
                evidence=_operator(request),
            )
            outcome, in_flight = await self._erase(entry)
        status = (
            ErasureStatus.IN_PROGRESS
            if outcome is Outcome.DONE
            else ErasureStatus.AWAITING_CONFIRMATION
        )
        answer = {"success": True, "email": body.email, "erasure": {"status": status}}
        return _withdrawn(answer, outcome, in_flight)

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

    async def health(self, _: web.Request) -> web.Response:
        """Without the broker withdrawals go on: what must be told waits in the outbox."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS), self._engine.connect() as tx:
                waiting = await store.outbox_length(tx)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            waiting, postgres = None, {"status": "unhealthy", "detail": type(error).__name__}
        else:
            postgres = {"status": "healthy"}
        rabbitmq = "healthy" if self._broker.connected else "degraded"
        return json_response(
            {
                "status": rabbitmq if postgres["status"] == "healthy" else "unhealthy",
                "components": {"postgres": postgres, "rabbitmq": {"status": rabbitmq}},
                "outbox": waiting,
            }
        )


_STATUS = {Outcome.DONE: 200, Outcome.IN_FLIGHT: 202, Outcome.SUPERSEDED: 409}
_LINK_STATUS = {"erasure_invalid": 400, "erasure_used": 410}


def _withdrawn(answer: dict[str, Any], outcome: Outcome, in_flight: int) -> web.Response:
    if outcome is Outcome.SUPERSEDED:
        raise Problem(
            409, detail="a newer consent was recorded meanwhile; ask again to withdraw it"
        )
    if outcome is Outcome.IN_FLIGHT:
        answer |= {"unsubscribed": True, "in_flight": in_flight}
    return json_response(answer, status=_STATUS[outcome])


def _page(
    request: web.Request, name: str, claims: Claims | None = None, *, status: int = 200
) -> web.Response:
    html = pages.render(
        name,
        _language(request),
        address=claims.subject if claims else "",
        token=request.query["token"] if claims else "",
    )
    return web.Response(
        text=html, status=status, content_type="text/html", charset="utf-8", headers=pages.HEADERS
    )


def _language(request: web.Request) -> str:
    chosen = request.query.get("lang", "")
    if chosen in LANGUAGES:
        return chosen
    return preferred_language(request.headers.get("Accept-Language", ""))


async def _form(request: web.Request) -> Mapping[str, Any]:
    if request.can_read_body and request.content_type not in FORMS:
        raise Problem(415, detail="send a form")
    try:
        return await request.post()
    except ValueError:
        raise Problem(400, detail="the form cannot be read") from None


def _origin(request: web.Request) -> Origin:
    return Origin(request.headers.get(CLIENT_ADDRESS), request.headers.get("User-Agent"))


def _operator(request: web.Request) -> dict[str, str]:
    operator = request.headers.get("X-Operator")
    return {"operator": operator[:200]} if operator else {}


def _trusted(request: web.Request) -> bool:
    return request.headers.get(CALLER) in {"service", "admin"}


def _admin(request: web.Request) -> None:
    if request.headers.get(CALLER) != "admin":
        raise Problem(401, detail="this needs the admin key")


def _path_address(request: web.Request) -> str:
    email = request.match_info["email"]
    try:
        normalise(email)
    except MalformedAddress as error:
        raise Problem(422, errors=[("email", str(error))]) from None
    return email


def _cursor(request: web.Request) -> int:
    given = request.query.get("cursor", "0")
    if not given.isdecimal() or len(given) > 18:
        raise Problem(422, errors=[("cursor", "not a cursor of this list")])
    return int(given)
