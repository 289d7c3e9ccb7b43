"""Routes that need no key. The gateway has checked keys and names the caller in X-Caller."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.group_commit import Batches
from libs.common.http.application import Model, Problem, accepted_at, json_response, only, parse
from libs.common.process import logs
from libs.domain.acts import Actor
from libs.domain.company import Channel, PurposeName, Wording, pair, split_pair
from libs.domain.email_address import normalise
from libs.domain.phone_number import Phone
from libs.domain.signed_links import Tokens
from services.consent import standing
from services.consent.changes import ErasedSince, WithdrawalRequest
from services.consent.http.caller import (
    Email,
    Named,
    claims_of,
    language,
    look,
    note_of,
    origin,
    over_budget,
    path_email,
    path_subject,
    trusted,
    withdrawal_response,
)
from services.consent.identity import channel_of, parse_subject
from services.consent.mails import LinkMails
from services.consent.optin import OptIns
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import ALL, MARKETING, Action, Agreement, ErasureStatus, State
from services.consent.standing import Standing
from services.consent.store import consents, data_subjects, erasures
from services.consent.store.vault import Vault
from services.consent.trail import chain
from services.consent.trail.chain import Entry

log = logs.get_logger(__name__)

MAX_BATCH = 100

Reason = Annotated[str, Field(max_length=2_000)]
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
Subject = Annotated[
    str, Field(max_length=254), AfterValidator(lambda text: parse_subject(text).identity)
]
SessionId = Annotated[str, Field(min_length=1, max_length=200)]


class Unsubscribe(Named):
    purpose: PurposeName | None = None
    """This one alone; without it, all."""
    channel: Channel | None = None
    """Of the address or number: there is only one."""
    reason: Reason | None = None
    session_id: SessionId | None = None
    objection: bool = False
    """To marketing (Art. 21(2) GDPR): recorded as such."""


class Revoke(Model):
    email: Email
    reason: Reason | None = None
    language: Language | None = None
    """Language of the mail with the link; default: the browser's."""


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class OptIn(Model):
    email: Email | None = None
    phone: Phone | None = None
    grants: Annotated[dict[str, Sha256], Field(min_length=1, max_length=20)] | None = None
    """By `purpose:channel`, the SHA-256 of the wording; in place of `text` and `wording`."""
    text: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    wording: Sha256 | None = None
    """The SHA-256 of the text; one of the two, which grants one purpose by one channel."""
    language: Language | None = None
    source: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    session_id: SessionId | None = None


class Asked(Model):
    subjects: Annotated[list[Subject], Field(max_length=50)]


@dataclass
class PublicRoutes:
    engine: AsyncEngine
    vault: Vault
    tokens: Tokens
    link_mails: LinkMails
    withdrawals: Withdrawals
    opt_ins: OptIns

    def __post_init__(self) -> None:
        self._states = Batches(self._read_states, limit=MAX_BATCH)
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/opt-in", self.opt_in)
        app.router.add_post("/api/unsubscribe", self.unsubscribe)
        app.router.add_post("/api/revoke-consent", self.revoke)
        app.router.add_get("/api/unsubscribe/status/{email}", self.status)
        app.router.add_post("/api/unsubscribe/status", only("service", self.statuses))

    async def opt_in(self, request: web.Request) -> web.Response:
        body = await parse(request, OptIn)
        for who, purpose, wording in self._granted(body):
            entry = Entry(
                action=Action.OPT_IN,
                email=who,
                origin=origin(request),
                session_id=body.session_id,
            )
            agreement = Agreement(
                wording.text,
                wording.language,
                body.source or "api",
                accepted_at(request),
                version=wording.version,
            )
            try:
                # Of their own: one that locks the trail's head must not lock another subject.
                async with self.engine.begin() as tx:
                    # The answer does not reveal whether it counts now or needs a confirmation.
                    written_in = language(request, body.language)
                    await self.opt_ins.record(tx, entry, agreement, written_in, purpose)
            except ErasedSince:  # rolled back; answered like any other
                log.info("opt_in.erased_since")
        return json_response({"success": True, "email": body.email or body.phone})

    def _granted(self, body: OptIn) -> list[tuple[str, str, Wording]]:
        """Read who agreed to what in which words.

        :raises Problem: 422, before anything is recorded
        """
        whose = {"email": body.email, "phone": body.phone}
        asked = {f"grants.{name}": (name, sha256) for name, sha256 in (body.grants or {}).items()}
        if not asked:
            asked = {"wording" if body.wording else "text": ("", body.wording or body.text or "")}
        found = []
        for field, (named, text) in asked.items():
            purpose, channel = split_pair(named)
            wording = self.opt_ins.published(text)
            if wording is None:
                unknown = (
                    "not a published wording of the company; send its exact text or its SHA-256"
                )
                raise Problem(422, errors=[(field, unknown)])
            if not named and len(wording.grants) < 2:
                purpose, channel = split_pair(wording.purpose)
            if not wording.allows(pair(purpose, channel)):
                needs = "name in `grants` a purpose and channel that this wording grants"
                raise Problem(422, errors=[(field, needs)])
            if (who := whose[channel]) is None:
                raise Problem(422, errors=[(channel, "this wording needs it")])
            found.append((who, pair(purpose, channel), wording))
        return found

    async def unsubscribe(self, request: web.Request) -> web.Response:
        body = await parse(request, Unsubscribe)
        purposes = self._withdrawn(body)
        entry = Entry(
            action=Action.UNSUBSCRIBE,
            email=body.given,
            origin=origin(request),
            reason=body.reason,
            session_id=body.session_id,
            evidence={"source": "objection" if body.objection else "api"},
        )
        # What people and programs withdraw for themselves is only in the trail.
        by_staff = Actor.of(request.headers).kind == "staff"
        act = "person.object" if body.objection else "person.withdraw"
        note = note_of(request, act) if by_staff else None
        answer = await self.withdrawals.withdraw(WithdrawalRequest(entry, purposes, note=note))
        return withdrawal_response(
            {"success": True, "email": body.given, "unsubscribed": True}, answer
        )

    def _withdrawn(self, body: Unsubscribe) -> Sequence[str]:
        """:raises Problem: 422"""
        channel = channel_of(body.given)
        if body.channel not in {None, channel}:
            raise Problem(422, errors=[("channel", f"this is reached by {channel}")])
        if body.purpose is None:
            return ALL
        if (purpose := pair(body.purpose, channel)) not in {*self.opt_ins.pairs, MARKETING}:
            raise Problem(422, errors=[("purpose", "not one of [purposes] in company.toml")])
        return [purpose]

    async def revoke(self, request: web.Request) -> web.Response:
        body = await parse(request, Revoke)
        entry = Entry(
            action=Action.REVOKE,
            email=body.email,
            origin=origin(request),
            reason=body.reason,
            evidence={"source": "api"},
        )
        unmailed = over_budget(request)
        make_mail = self.link_mails.erasure(language(request, body.language))
        answer = await self.withdrawals.withdraw(
            WithdrawalRequest(entry, erase=True, make_mail=None if unmailed else make_mail)
        )
        # Anyone may ask about any address, so the answer does not reveal whether it is known.
        shown = {
            "success": True,
            "email": body.email,
            "consents_revoked": [MARKETING],
            "erasure": {
                "status": "ask_again_later" if unmailed else ErasureStatus.AWAITING_CONFIRMATION
            },
        }
        if trusted(request):
            suppression_hash = self.vault.suppression_hash(normalise(body.email))
            async with self.engine.begin() as tx:
                if found := await erasures.find_erasure(tx, suppression_hash):
                    shown["erasure"] = {"status": found.status}
        return withdrawal_response(shown, answer)

    async def status(self, request: web.Request) -> web.Response:
        if trusted(request):
            given, subject = path_subject(request)
            email = subject.identity  # or a number
        else:
            given = path_email(request)
            email = normalise(given)
        full = trusted(request) or self._has_link(request, email)
        states = await self._states.submit(self.vault.lookup_hash(email))
        last = await self._last_action(request, email) if full else None
        granted = {MARKETING: states.get(MARKETING) is State.GRANTED}
        purposes, since = None, None
        if full:
            async with self.engine.connect() as tx:
                purposes = await self._purposes(tx, email)
                if trusted(request):
                    since = await data_subjects.restricted_since(tx, self.vault, email)
        return json_response(
            {
                "email": given if full else None,
                "unsubscribed": states.get(MARKETING) is State.WITHDRAWN,
                "consents": granted if full else None,
                "purposes": purposes,
                "restricted_since": since and since.isoformat(),
                "last_action": last and last[0],
                "last_action_at": last and last[1].isoformat(),
            }
        )

    async def statuses(self, request: web.Request) -> web.Response:
        """Say how the consents of several addresses and numbers stand, in one answer."""
        asked = (await parse(request, Asked)).subjects
        async with self.engine.connect() as tx:
            found = [
                {"subject": each, "purposes": await self._purposes(tx, each)} for each in asked
            ]
        return json_response({"items": found})

    async def _purposes(self, tx: AsyncConnection, identity: str) -> dict[str, dict[str, Any]]:
        found = await standing.of_address(
            tx, self.vault, identity, self.opt_ins.pairs, self.opt_ins.lifetime
        )
        purposes: dict[str, dict[str, Any]] = {}
        for each, stands in found.items():
            purpose, channel = split_pair(each)
            purposes.setdefault(purpose, {})[channel] = _shown(stands)
        return purposes

    async def _read_states(self, lookup_hashes: Sequence[bytes]) -> list[dict[str, State]]:
        async with self._autocommit.connect() as tx:
            return await consents.states_of_all(tx, lookup_hashes)

    async def _last_action(self, request: web.Request, email: str) -> tuple[str, datetime] | None:
        async with self.engine.begin() as tx:
            subject = await data_subjects.find(tx, self.vault, email)
            if trusted(request):
                await look(tx, request, subject)
            return await chain.last_action(tx, subject.id) if subject else None

    def _has_link(self, request: web.Request, email: str) -> bool:
        claims = claims_of(self.tokens, request)
        return claims is not None and normalise(claims.subject) == email


def _shown(standing: Standing) -> dict[str, Any]:
    since, about = standing.since, standing.agreement
    wording = about and about["version"]
    return {"state": standing.state, "since": since and since.isoformat(), "wording": wording}
