"""Routes of the pages. Scanners of mail fetch every link: GET and HEAD change nothing."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.addresses import normalise
from libs.common.tokens import Claims, Tokens
from libs.common.web import Problem
from services.consent import pages, preferences
from services.consent.callers import (
    ERASURE_TOKEN,
    OPT_IN_TOKEN,
    claims_of,
    language,
    origin,
)
from services.consent.consent import PURPOSES, Action, State
from services.consent.optin import OptIns
from services.consent.pages import Quote
from services.consent.settings import ConsentSettings
from services.consent.store import consents, erasing, people
from services.consent.trail import Entry
from services.consent.vault import Vault
from services.consent.withdrawals import STATUS, Withdrawals

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
ONE_CLICK = ("List-Unsubscribe", "One-Click")


class PageRoutes:
    def __init__(
        self,
        engine: AsyncEngine,
        vault: Vault,
        tokens: Tokens,
        settings: ConsentSettings,
        withdrawals: Withdrawals,
        opt_ins: OptIns,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._tokens = tokens
        self._erasure_age = timedelta(hours=settings.erasure_link_hours)
        self._withdrawals = withdrawals
        self._opt_ins = opt_ins
        self._site = settings.site

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/unsubscribe", self.unsubscribe_page)
        app.router.add_post("/unsubscribe", self.unsubscribe_by_link)
        app.router.add_get("/preferences", self.preferences_page)
        app.router.add_post("/preferences", self.withdraw_by_link)
        app.router.add_get("/opt-in/confirm", self.opt_in_page)
        app.router.add_post("/opt-in/confirm", self.opt_in_by_link)
        app.router.add_get("/erasure/confirm", self.erasure_page)
        app.router.add_post("/erasure/confirm", self.erase_by_link)

    async def unsubscribe_page(self, request: web.Request) -> web.Response:
        claims = claims_of(self._tokens, request)
        if claims is None:
            return self._page(request, "invalid", status=400)
        address_hash = self._vault.address_hash(normalise(claims.subject))
        async with self._engine.begin() as tx:
            states = await consents.states(tx, address_hash)
        gone = states.get(claims.purpose) is State.WITHDRAWN
        return self._page(request, "unsubscribed" if gone else "unsubscribe", claims)

    async def unsubscribe_by_link(self, request: web.Request) -> web.Response:
        """Act on the page's button, or on a mailbox provider's one-click post (RFC 8058)."""
        claims, form = await self._pressed(request)
        if claims is None:
            return self._page(request, "invalid", status=400)
        one_click = form.get(ONE_CLICK[0]) == ONE_CLICK[1]
        entry = _withdrawal(request, claims, "one-click" if one_click else "page")
        _, outcome, _ = await self._withdrawals.withdraw(entry)
        return self._page(request, outcome, claims, status=STATUS[outcome])

    async def preferences_page(self, request: web.Request) -> web.Response:
        claims = claims_of(self._tokens, request)
        if claims is None:
            return self._page(request, "invalid", status=400)
        async with self._engine.begin() as tx:
            choices = await preferences.choices(
                tx, self._vault, normalise(claims.subject), language(request)
            )
        return self._page(request, "preferences", claims, choices=choices)

    async def withdraw_by_link(self, request: web.Request) -> web.Response:
        """Withdraw the purpose whose button was pressed, or all."""
        claims, form = await self._pressed(request)
        if claims is None:
            return self._page(request, "invalid", status=400)
        chosen = [purpose for purpose in PURPOSES if form.get("purpose") == purpose]
        entry = _withdrawal(request, claims, "preferences")
        outcome, _ = await self._withdrawals.withdraw_some(entry, chosen or PURPOSES)
        return self._page(request, outcome, claims, status=STATUS[outcome], purpose="".join(chosen))

    async def _pressed(self, request: web.Request) -> tuple[Claims | None, Mapping[str, Any]]:
        claims = claims_of(self._tokens, request)
        return claims, await _form(request) if claims else {}

    async def opt_in_page(self, request: web.Request) -> web.Response:
        claims = claims_of(self._tokens, request, OPT_IN_TOKEN, self._opt_ins.lifetime)
        if claims is None:
            return self._page(request, "opt_in_invalid", status=400)
        async with self._engine.begin() as tx:
            wording = await self._opt_ins.waiting(tx, claims)
        if wording is None:
            return self._page(request, "opt_in_used", status=410)
        return self._page(request, "opt_in", claims, wording=Quote(wording.text, wording.language))

    async def opt_in_by_link(self, request: web.Request) -> web.Response:
        claims = claims_of(self._tokens, request, OPT_IN_TOKEN, self._opt_ins.lifetime)
        if claims is None:
            return self._page(request, "opt_in_invalid", status=400)
        await _form(request)
        async with self._engine.begin() as tx:
            confirmed = await self._opt_ins.confirm(tx, claims, origin(request))
        if not confirmed:
            return self._page(request, "opt_in_used", status=410)
        return self._page(request, "opt_in_done", claims)

    async def erasure_page(self, request: web.Request) -> web.Response:
        name, claims = await self._erasure_link(request)
        return self._page(request, name, claims, status=_ERASURE_STATUS[name])

    async def erase_by_link(self, request: web.Request) -> web.Response:
        name, claims = await self._erasure_link(request)
        if claims is None:
            return self._page(request, name, status=_ERASURE_STATUS[name])
        await _form(request)
        entry = Entry(
            action=Action.ERASURE_REQUESTED,
            email=claims.subject,
            origin=origin(request),
            evidence={"source": "link"},
        )
        outcome, _ = await self._withdrawals.erase(entry)
        return self._page(request, f"erasure_{outcome}", claims, status=STATUS[outcome])

    async def _erasure_link(self, request: web.Request) -> tuple[str, Claims | None]:
        """Say which page the link leads to, with its claims if it may still be used."""
        claims = claims_of(self._tokens, request, ERASURE_TOKEN, self._erasure_age)
        if claims is None:
            return "erasure_invalid", None
        async with self._engine.begin() as tx:
            person = await people.find(tx, self._vault, claims.subject)
            erasure_id = UUID(claims.purpose)
            if person and await erasing.awaits_confirmation(tx, erasure_id, person.id):
                return "erasure", claims
        return "erasure_used", None

    def _page(
        self,
        request: web.Request,
        name: str,
        claims: Claims | None = None,
        *,
        status: int = 200,
        **more: Any,
    ) -> web.Response:
        html = pages.render(
            name,
            language(request),
            site=self._site,
            address=claims.subject if claims else "",
            token=request.query.get("token", ""),
            **more,
        )
        return web.Response(
            text=html,
            status=status,
            content_type="text/html",
            charset="utf-8",
            headers=pages.HEADERS,
        )


_ERASURE_STATUS = {"erasure": 200, "erasure_invalid": 400, "erasure_used": 410}


def _withdrawal(request: web.Request, claims: Claims, source: str) -> Entry:
    return Entry(Action.UNSUBSCRIBE, claims.subject, origin(request), evidence={"source": source})


async def _form(request: web.Request) -> Mapping[str, Any]:
    if request.can_read_body and request.content_type not in FORMS:
        raise Problem(415, detail="send a form")
    try:
        return await request.post()
    except ValueError:
        raise Problem(400, detail="the form cannot be read") from None
