"""Routes: parse, call, answer. The gateway has checked keys; it says who calls in X-Caller."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.addresses import normalise
from libs.common.batches import Batches
from libs.common.broker import Broker
from libs.common.tokens import Tokens
from libs.common.web import Model, json_response, parse
from services.consent import pages, trail
from services.consent.callers import (
    ERASURE_TOKEN,
    Email,
    claims_of,
    language,
    origin,
    path_address,
    trusted,
)
from services.consent.changes import AskForProof, Wording
from services.consent.consent import PURPOSES, Action, ErasureStatus, State, preferred_language
from services.consent.optin import OptIns
from services.consent.settings import ConsentSettings
from services.consent.store import consents, erasing, people, upkeep
from services.consent.trail import Entry
from services.consent.vault import Vault
from services.consent.withdrawals import Withdrawals, answered

HEALTH_SECONDS = 2.0
MAX_BATCH = 100

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


class Routes:
    def __init__(
        self,
        engine: AsyncEngine,
        broker: Broker,
        vault: Vault,
        tokens: Tokens,
        settings: ConsentSettings,
        withdrawals: Withdrawals,
        opt_ins: OptIns,
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._vault = vault
        self._tokens = tokens
        self._settings = settings
        self._withdrawals = withdrawals
        self._opt_ins = opt_ins
        self._states = Batches(self._read_states, limit=MAX_BATCH)

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/opt-in", self.opt_in)
        app.router.add_post("/api/unsubscribe", self.unsubscribe)
        app.router.add_post("/api/revoke-consent", self.revoke)
        app.router.add_get("/api/unsubscribe/status/{email}", self.status)
        app.router.add_get("/health/deep", self.health)

    async def opt_in(self, request: web.Request) -> web.Response:
        body = await parse(request, OptIn)
        entry = Entry(
            action=Action.OPT_IN,
            email=body.email,
            origin=origin(request),
            session_id=body.session_id,
        )
        wording = Wording(body.text, body.language, body.source or "api")
        async with self._engine.begin() as tx:
            # Counted or mailed for first: the answer is the same.
            await self._opt_ins.record(tx, entry, wording, _written_in(body.language, request))
        return json_response({"success": True, "email": body.email})

    async def unsubscribe(self, request: web.Request) -> web.Response:
        body = await parse(request, Unsubscribe)
        entry = Entry(
            action=Action.UNSUBSCRIBE,
            email=body.email,
            origin=origin(request),
            reason=body.reason,
            session_id=body.session_id,
            evidence={"source": "api"},
        )
        _, outcome, in_flight = await self._withdrawals.withdraw(entry)
        return answered(
            {"success": True, "email": body.email, "unsubscribed": True}, outcome, in_flight
        )

    async def revoke(self, request: web.Request) -> web.Response:
        body = await parse(request, Revoke)
        entry = Entry(
            action=Action.REVOKE,
            email=body.email,
            origin=origin(request),
            reason=body.reason,
            evidence={"source": "api"},
        )
        _, outcome, in_flight = await self._withdrawals.withdraw(
            entry, erase=True, ask_for_proof=self._asking(language(request))
        )
        # Anybody may ask for any address: known or not, erased or not, they all hear the same.
        answer = {
            "success": True,
            "email": body.email,
            "consents_revoked": list(PURPOSES),
            "erasure": {"status": ErasureStatus.AWAITING_CONFIRMATION},
        }
        if trusted(request):
            address_hash = self._vault.suppression_hash(normalise(body.email))
            async with self._engine.begin() as tx:
                if found := await erasing.find_erasure(tx, address_hash):
                    answer["erasure"] = {"status": found.status}
        return answered(answer, outcome, in_flight)

    def _asking(self, chosen: str) -> AskForProof:
        def mail(address: str, erasure_id: UUID) -> dict[str, Any]:
            # For one request only: a link that was used, or is of before, erases nobody anew.
            token = self._tokens.sign(address, str(erasure_id), ERASURE_TOKEN, datetime.now(UTC))
            link = f"{self._settings.public_base_url.rstrip('/')}/erasure/confirm?token={token}"
            lifetime = timedelta(hours=self._settings.erasure_link_hours)
            rendered = pages.mail("erasure_mail", chosen, link=link, lifetime=lifetime)
            return {"to": address, **rendered}

        return mail

    async def status(self, request: web.Request) -> web.Response:
        email = path_address(request)
        address = normalise(email)
        full = trusted(request) or self._holds_link(request, address)
        states = await self._states.ask(self._vault.address_hash(address))
        last = await self._last(address) if full else None
        granted = {purpose: states.get(purpose) is State.GRANTED for purpose in PURPOSES}
        return json_response(
            {
                "email": email if full else None,
                "unsubscribed": State.WITHDRAWN in states.values(),
                "consents": granted if full else None,
                "last_action": last and last[0],
                "last_action_at": last and last[1].isoformat(),
            }
        )

    async def _read_states(self, address_hashes: Sequence[bytes]) -> list[dict[str, State]]:
        async with self._engine.connect() as tx:
            return await consents.states_of_all(tx, address_hashes)

    async def _last(self, address: str) -> tuple[str, datetime] | None:
        async with self._engine.connect() as tx:
            person = await people.find(tx, self._vault, address)
            return await trail.last(tx, person.id) if person else None

    def _holds_link(self, request: web.Request, address: str) -> bool:
        claims = claims_of(self._tokens, request)
        return claims is not None and normalise(claims.subject) == address

    async def health(self, _: web.Request) -> web.Response:
        """Without the broker withdrawals go on: what must be told waits in the outbox."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS), self._engine.connect() as tx:
                waiting = await upkeep.outbox_length(tx)
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


def _written_in(chosen: str | None, request: web.Request) -> str:
    return preferred_language(chosen) if chosen else language(request)
