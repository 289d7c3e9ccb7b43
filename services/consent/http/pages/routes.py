"""Routes of the pages. Mail scanners fetch every link: GET and HEAD change nothing."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp.typedefs import Handler
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http import plain_form
from libs.domain.company import split_pair
from libs.domain.email_address import normalise
from libs.domain.signed_links import Claims, Tokens
from services.consent import standing
from services.consent.changes import ErasedSince, WithdrawalRequest
from services.consent.http import pages
from services.consent.http.caller import STATUS, agreed, claims_of, language, origin
from services.consent.optin import OptIns
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import ALL, Action, LinkMail, Stands, State, WithdrawalResult
from services.consent.settings import ConsentSettings
from services.consent.standing import Standing
from services.consent.store import consents, data_subjects
from services.consent.store.data_subjects import Lock
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.trail.chain import Entry

ONE_CLICK = ("List-Unsubscribe", "One-Click")
OFTEN = {"weekly": 7, "monthly": 30}
"""At most one mail in so many days."""


@dataclass
class PageRoutes:
    engine: AsyncEngine
    vault: Vault
    tokens: Tokens
    settings: ConsentSettings
    withdrawals: Withdrawals
    opt_ins: OptIns

    def add_to(self, app: web.Application) -> None:
        for add, handler in (
            (app.router.add_get, self.unsubscribe_page),
            (app.router.add_post, self.unsubscribe_by_link),
        ):
            add("/unsubscribe", self._with_claims(handler, by_address=True))
        app.router.add_get("/preferences", self._with_claims(self.preferences_page))
        app.router.add_post("/preferences", self._with_claims(self.change_by_link))
        app.router.add_get("/opt-in/confirm", self.opt_in_page)
        app.router.add_post("/opt-in/confirm", self.opt_in_by_link)
        app.router.add_get("/erasure/confirm", self.erasure_page)
        app.router.add_post("/erasure/confirm", self.erase_by_link)

    def _with_claims(
        self,
        handler: Callable[[web.Request, Claims], Awaitable[web.Response]],
        *,
        by_address: bool = False,
    ) -> Handler:
        """Answer 400 if the link's token is not valid.

        :param by_address: it may name the address instead, as other systems' mails do: anybody may
            withdraw for it, as by the API, and sees nothing of it
        """

        async def checked(request: web.Request) -> web.Response:
            claims = claims_of(self.tokens, request)
            if claims is None and by_address:
                claims = _named(request)
            if claims is None:
                return self._page(request, "invalid", status=400)
            return await handler(request, claims)

        return checked

    async def unsubscribe_page(self, request: web.Request, claims: Claims) -> web.Response:
        lookup_hash = self.vault.lookup_hash(normalise(claims.subject))
        async with self.engine.begin() as tx:
            states = await consents.states(tx, lookup_hash)
        gone = states.get(claims.purpose) is State.WITHDRAWN
        return self._page(request, "already_unsubscribed" if gone else "unsubscribe", claims)

    async def unsubscribe_by_link(self, request: web.Request, claims: Claims) -> web.Response:
        """Act on the page's button, or on a mailbox provider's one-click post (RFC 8058)."""
        form = await plain_form.read(request)
        one_click = form.get(ONE_CLICK[0]) == ONE_CLICK[1]
        entry = _withdrawal(request, claims, "one-click" if one_click else "page")
        answer = await self.withdrawals.withdraw(WithdrawalRequest(entry))
        return self._withdrawn(request, claims, answer.result)

    async def preferences_page(self, request: web.Request, claims: Claims) -> web.Response:
        async with self.engine.begin() as tx:
            email = normalise(claims.subject)
            found = await standing.of_address(
                tx, self.vault, email, self.opt_ins.pairs, self.opt_ins.lifetime
            )
            subject = await data_subjects.find(tx, self.vault, email)
            wishes = await run(tx, "held_preferences", subject=subject.id) if subject else ()
            wanted = {row.purpose: row for row in wishes}
        choices = [
            self._choice(purpose, each, wanted.get(purpose), language(request))
            for purpose, each in found.items()
            if each.state is not Stands.NONE or self.opt_ins.company.current(purpose, "")
        ]
        return self._page(request, "preferences", claims, choices=choices)

    def _choice(
        self, purpose: str, stands: Standing, wanted: Any, language: str
    ) -> Mapping[str, Any]:
        """Return what the page shows of a purpose; `offer`: what may be agreed to here instead."""
        texts = pages.TEXTS["preferences"][language]
        since = pages.date(stands.since, language) if stands.since else ""
        is_granted = stands.state is Stands.GRANTED
        pauses = wanted and wanted.paused_until and wanted.paused_until > datetime.now(UTC)
        label = self.opt_ins.label(purpose, language)
        return {
            "purpose": purpose,
            "name": label or pages.TEXTS["marketing"][language]["name"],
            "state": texts[stands.state].format(date=since),
            "granted": is_granted,
            "wording": stands.agreement,
            "offer": None if is_granted else self.opt_ins.company.current(purpose, language),
            "paused": pages.date(wanted.paused_until, language) if pauses else "",
            "days": wanted and wanted.days,
        }

    async def change_by_link(self, request: web.Request, claims: Claims) -> web.Response:
        """Do what the pressed button says: withdraw one purpose or all, agree, or ask for less.

        What is unknown withdraws all: never less than the person meant.
        """
        form = await plain_form.read(request)
        if form.get("grant"):
            return await self._grant(request, claims, form)
        if form.get("prefer"):
            return await self._prefer(request, claims, form)
        chosen = [each for each in self.opt_ins.pairs if form.get("purpose") == each]
        entry = _withdrawal(request, claims, "preferences")
        answer = await self.withdrawals.withdraw(WithdrawalRequest(entry, chosen or ALL))
        return self._withdrawn(request, claims, answer.result, purpose="".join(chosen))

    async def _grant(
        self, request: web.Request, claims: Claims, form: Mapping[str, str]
    ) -> web.Response:
        """Agree to what the page showed. A mail may have been passed on: it asks to confirm."""
        purpose = form["grant"]
        wording = self.opt_ins.published(form.get("wording", ""))
        is_mail = purpose in self.opt_ins.pairs and split_pair(purpose)[1] == "email"
        if wording is None or not is_mail or not wording.allows(purpose):
            return self._page(request, "invalid", status=422)
        entry = Entry(Action.OPT_IN, claims.subject, origin(request))
        agreement = agreed(request, wording, "preferences")
        try:
            async with self.engine.begin() as tx:
                counts = await self.opt_ins.record(tx, entry, agreement, language(request), purpose)
        except ErasedSince:  # rolled back
            return self._page(request, "invalid", status=410)
        return self._page(request, "opt_in_done" if counts else "opt_in_mailed", claims)

    async def _prefer(
        self, request: web.Request, claims: Claims, form: Mapping[str, str]
    ) -> web.Response:
        """Pause, or ask for fewer mails; consent itself stays as it is."""
        pause, often = form.get("pause", ""), form.get("often", "")
        is_known = pause in {"", "keep", "30", "90"} and often in {"", *OFTEN}
        if form["prefer"] not in self.opt_ins.pairs or not is_known:
            return self._page(request, "invalid", status=422)
        async with self.engine.begin() as tx:
            email = normalise(claims.subject)
            subject = await data_subjects.find(tx, self.vault, email, Lock.CHANGE)
            if subject is None:
                return self._page(request, "invalid", status=410)
            await run(
                tx, "prefer", subject=subject.id, purpose=form["prefer"],
                pause=int(pause) if pause.isdigit() else None, keep=pause == "keep",
                days=OFTEN.get(often),
            )  # fmt: skip
        return self._page(request, "preferred", claims)

    async def opt_in_page(self, request: web.Request) -> web.Response:
        claims = claims_of(self.tokens, request, LinkMail.OPT_IN, self.opt_ins.lifetime)
        if claims is None:
            return self._page(request, "opt_in_invalid", status=400)
        async with self.engine.begin() as tx:
            wording = await self.opt_ins.waiting(tx, claims)
        if wording is None:
            return self._page(request, "opt_in_used", claims, status=410)
        return self._page(request, "opt_in", claims, wording=wording)

    async def opt_in_by_link(self, request: web.Request) -> web.Response:
        claims = claims_of(self.tokens, request, LinkMail.OPT_IN)  # a link can refuse forever
        if claims is not None and (await plain_form.read(request)).get("refuse"):
            return await self._refuse(request, claims)
        claims = claims_of(self.tokens, request, LinkMail.OPT_IN, self.opt_ins.lifetime)
        if claims is None:
            return self._page(request, "opt_in_invalid", status=400)
        async with self.engine.begin() as tx:
            confirmed = await self.opt_ins.confirm(tx, claims, origin(request))
        if not confirmed:
            return self._page(request, "opt_in_used", status=410)
        return self._page(request, "opt_in_done", claims)

    async def _refuse(self, request: web.Request, claims: Claims) -> web.Response:
        """Withdraw, and never again mail a link that asks for consent."""
        refusal = WithdrawalRequest(_withdrawal(request, claims, "refused"), never_ask=True)
        result = (await self.withdrawals.withdraw(refusal)).result
        if result is WithdrawalResult.DONE:
            return self._page(request, "opt_in_refused", claims)
        return self._withdrawn(request, claims, result)

    async def erasure_page(self, request: web.Request) -> web.Response:
        name, claims = await self._erasure_link(request)
        return self._page(request, name, claims, status=_ERASURE_STATUS[name])

    async def erase_by_link(self, request: web.Request) -> web.Response:
        name, claims = await self._erasure_link(request)
        if claims is None:
            return self._page(request, name, status=_ERASURE_STATUS[name])
        await plain_form.read(request)
        said = {"source": "link"}
        entry = Entry(Action.ERASURE_REQUESTED, claims.subject, origin(request), evidence=said)
        result = (await self.withdrawals.erase(entry)).result
        return self._page(request, f"erasure_{result}", claims, status=STATUS[result])

    async def _erasure_link(self, request: web.Request) -> tuple[str, Claims | None]:
        """Return the link's page, and its claims if it may still be used."""
        age = timedelta(hours=self.settings.erasure_link_hours)
        claims = claims_of(self.tokens, request, LinkMail.ERASURE, age)
        if claims is None:
            return "erasure_invalid", None
        async with self.engine.begin() as tx:
            subject = await data_subjects.find(tx, self.vault, claims.subject)
            erasure_id = UUID(claims.purpose)
            if subject:
                asked = await run(tx, "awaits_confirmation", id=erasure_id, subject=subject.id)
                if asked.scalar():
                    return "erasure", claims
        return "erasure_used", None

    def _withdrawn(
        self, request: web.Request, claims: Claims, result: WithdrawalResult, **more: Any
    ) -> web.Response:
        name, status = f"unsubscribe_{result}", STATUS[result]
        return self._page(request, name, claims, status=status, **more)

    def _page(
        self,
        request: web.Request,
        name: str,
        claims: Claims | None = None,
        *,
        status: int = 200,
        **more: Any,
    ) -> web.Response:
        kept = timedelta(days=self.settings.suppression_retention_days)
        by_address, company = claims and claims.purpose == _ANY, self.settings.company
        shown = {
            "email": claims.subject if claims else "",
            "token": "" if by_address else request.query.get("token", ""),
            "kept_until": pages.date(datetime.now(UTC) + kept, language(request)),
        }
        return web.Response(
            text=pages.render(name, language(request), company=company, **shown | more),
            status=status,
            content_type="text/html",
            charset="utf-8",
            headers=pages.headers(company),
        )


_ANY = ""
"""The purpose of a link that only names an address."""
_ERASURE_STATUS = {"erasure": 200, "erasure_invalid": 400, "erasure_used": 410}


def _named(request: web.Request) -> Claims | None:
    try:
        email = normalise(request.query.get("email", ""))
    except ValueError:
        return None
    return Claims(email, _ANY, Action.UNSUBSCRIBE, 0)


def _withdrawal(request: web.Request, claims: Claims, source: str) -> Entry:
    return Entry(Action.UNSUBSCRIBE, claims.subject, origin(request), evidence={"source": source})
