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
from libs.domain.email_address import normalise
from libs.domain.signed_links import Claims, Tokens
from services.consent import standing
from services.consent.changes import WithdrawalRequest
from services.consent.http import pages
from services.consent.http.caller import STATUS, claims_of, language, origin
from services.consent.http.pages import Choice, Quote
from services.consent.optin import OptIns
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import PURPOSES, Action, LinkMail, Stands, State, WithdrawalResult
from services.consent.settings import ConsentSettings
from services.consent.standing import Standing
from services.consent.store import consents, data_subjects
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.trail.chain import Entry

ONE_CLICK = ("List-Unsubscribe", "One-Click")


@dataclass
class PageRoutes:
    engine: AsyncEngine
    vault: Vault
    tokens: Tokens
    settings: ConsentSettings
    withdrawals: Withdrawals
    opt_ins: OptIns

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/unsubscribe", self._with_claims(self.unsubscribe_page))
        app.router.add_post("/unsubscribe", self._with_claims(self.unsubscribe_by_link))
        app.router.add_get("/preferences", self._with_claims(self.preferences_page))
        app.router.add_post("/preferences", self._with_claims(self.withdraw_by_link))
        app.router.add_get("/opt-in/confirm", self.opt_in_page)
        app.router.add_post("/opt-in/confirm", self.opt_in_by_link)
        app.router.add_get("/erasure/confirm", self.erasure_page)
        app.router.add_post("/erasure/confirm", self.erase_by_link)

    def _with_claims(
        self, handler: Callable[[web.Request, Claims], Awaitable[web.Response]]
    ) -> Handler:
        """Answer 400 if the link's token is not valid."""

        async def checked(request: web.Request) -> web.Response:
            claims = claims_of(self.tokens, request)
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
            found = await standing.of_address(
                tx, self.vault, normalise(claims.subject), self.opt_ins.lifetime
            )
        choices = _choices(found, language(request))
        return self._page(request, "preferences", claims, choices=choices)

    async def withdraw_by_link(self, request: web.Request, claims: Claims) -> web.Response:
        """Withdraw the purpose whose button was pressed, or all."""
        form = await plain_form.read(request)
        chosen = [purpose for purpose in PURPOSES if form.get("purpose") == purpose]
        entry = _withdrawal(request, claims, "preferences")
        answer = await self.withdrawals.withdraw(WithdrawalRequest(entry, chosen or PURPOSES))
        return self._withdrawn(request, claims, answer.result, purpose="".join(chosen))

    async def opt_in_page(self, request: web.Request) -> web.Response:
        claims = claims_of(self.tokens, request, LinkMail.OPT_IN, self.opt_ins.lifetime)
        if claims is None:
            return self._page(request, "opt_in_invalid", status=400)
        async with self.engine.begin() as tx:
            wording = await self.opt_ins.waiting(tx, claims)
        if wording is None:
            return self._page(request, "opt_in_used", claims, status=410)
        return self._page(request, "opt_in", claims, wording=Quote(wording.text, wording.language))

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
        entry = Entry(
            action=Action.ERASURE_REQUESTED,
            email=claims.subject,
            origin=origin(request),
            evidence={"source": "link"},
        )
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
        html = pages.render(
            name,
            language(request),
            company=self.settings.company,
            email=claims.subject if claims else "",
            token=request.query.get("token", ""),
            kept_until=pages.date(datetime.now(UTC) + kept, language(request)),
            **more,
        )
        return web.Response(
            text=html,
            status=status,
            content_type="text/html",
            charset="utf-8",
            headers=pages.headers(self.settings.company),
        )


_ERASURE_STATUS = {"erasure": 200, "erasure_invalid": 400, "erasure_used": 410}


def _withdrawal(request: web.Request, claims: Claims, source: str) -> Entry:
    return Entry(Action.UNSUBSCRIBE, claims.subject, origin(request), evidence={"source": source})


def _choices(found: Mapping[str, Standing], language: str) -> list[Choice]:
    """Return each purpose with its state, for the preferences page."""
    texts = pages.text("preferences", language)
    shown = []
    for purpose, each in found.items():
        named, about = pages.text(purpose, language), each.agreement
        since = pages.date(each.since, language) if each.since else ""
        shown.append(
            Choice(
                purpose=purpose,
                name=named["name"],
                state=texts[each.state].format(date=since),
                granted=each.state is Stands.GRANTED,
                withdraw=named["withdraw"],
                wording=Quote(about["text"], about["language"]) if about else None,
            )
        )
    return shown
