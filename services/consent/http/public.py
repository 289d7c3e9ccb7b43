"""Routes that need no key. The gateway has checked keys and names the caller in X-Caller."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.engine import alone
from libs.common.database.group_commit import Batches
from libs.common.http.application import Model, Problem, json_response, only, parse
from libs.common.process.logs import log
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
    agreed,
    claims_of,
    language,
    look,
    note_of,
    origin,
    over_budget,
    path_subject,
    trusted,
    withdrawal_response,
)
from services.consent.mails import LinkMails
from services.consent.optin import OptIns
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import ALL, MARKETING, Action, ErasureStatus, State
from services.consent.store import consents, data_subjects
from services.consent.store.data_subjects import channel_of, parse_subject
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.trail.chain import Entry

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

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/opt-in", self.opt_in)
        app.router.add_post("/api/unsubscribe", self.unsubscribe)
        app.router.add_post("/api/revoke-consent", self.revoke)
        app.router.add_get("/api/unsubscribe/status/{email}", self.status)
        app.router.add_post("/api/unsubscribe/status", only("service", self.statuses))

    async def opt_in(self, request: web.Request) -> web.Response:
        body = await parse(request, OptIn)
        for who, purpose, wording in self._granted(body):
            entry = Entry(Action.OPT_IN, who, origin(request), session_id=body.session_id)
            agreement = agreed(request, wording, body.source or "api")
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
            Action.UNSUBSCRIBE, body.given, origin(request), body.reason, body.session_id,
            {"source": "objection" if body.objection else "api"},
        )  # fmt: skip
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
        evidence = {"source": "api"}
        entry = Entry(Action.REVOKE, body.email, origin(request), body.reason, evidence=evidence)
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
                if found := await run(tx, "find_erasure", hash=suppression_hash):
                    shown["erasure"] = {"status": found.one().status}
        return withdrawal_response(shown, answer)

    async def status(self, request: web.Request) -> web.Response:
        has_key = trusted(request)
        given, subject = path_subject(request, by_phone=has_key)
        identity = subject.identity
        states = await self._states.submit(self.vault.lookup_hash(identity))
        state = states.get(MARKETING)
        shown: dict[str, Any] = {"email": None, "unsubscribed": state is State.WITHDRAWN}
        names = ("consents", "purposes", "restricted_since", "last_action", "last_action_at")
        shown |= dict.fromkeys(names)
        if has_key or self._has_link(request, identity):
            async with self.engine.begin() as tx:
                row = await data_subjects.find(tx, self.vault, identity)
                last = row and (await run(tx, "last_row", subject=row.id)).one_or_none()
                shown |= {
                    "email": given,
                    "consents": {MARKETING: state is State.GRANTED},
                    "purposes": await self._purposes(tx, identity),
                    "last_action": last and last.action,
                    "last_action_at": last and last.timestamp,
                }
                if has_key:
                    await look(tx, request, row)
                    restricted = row and await data_subjects.restricted(tx, row.id)
                    shown["restricted_since"] = restricted and restricted.since
        return json_response(shown)

    async def statuses(self, request: web.Request) -> web.Response:
        """Say how the consents of several addresses and numbers stand, in one answer."""
        asked = (await parse(request, Asked)).subjects
        async with self.engine.connect() as tx:
            found = [
                {"subject": each, "purposes": await self._purposes(tx, each)} for each in asked
            ]
        return json_response({"items": found})

    async def _purposes(self, tx: AsyncConnection, identity: str) -> dict[str, dict[str, Any]]:
        asked = self.opt_ins.pairs, self.opt_ins.lifetime
        return await standing.purposes(tx, self.vault, identity, *asked)

    async def _read_states(self, lookup_hashes: Sequence[bytes]) -> list[dict[str, State]]:
        async with alone(self.engine) as tx:
            return await consents.states_of_all(tx, lookup_hashes)

    def _has_link(self, request: web.Request, email: str) -> bool:
        claims = claims_of(self.tokens, request)
        return claims is not None and normalise(claims.subject) == email
