"""The base of a page: who may see it, what it shows, and the acts that its forms post."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID

from aiohttp import web
from multidict import MultiMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http import plain_form
from libs.common.http.application import path_id
from services.console.bulk import Bulk
from services.console.gateway import Answer, Gateway, part
from services.console.keys.keys import Keys
from services.console.messages import RefusedError, reason_in
from services.console.pages.door import Door
from services.console.pages.page import redirect
from services.console.people.logins import Logins
from services.console.people.people import People
from services.console.record import Looks
from services.console.rules import Role
from services.console.store.sessions import Visitor


@dataclass(frozen=True, kw_only=True)
class Site:
    """What pages show and act on."""

    engine: AsyncEngine
    door: Door
    gateway: Gateway
    looks: Looks
    bulk: Bulk
    keys: Keys
    logins: Logins
    people: People
    queues_url: str
    """Before a queue's name, in RabbitMQ's UI; empty: no links."""
    set_up: Mapping[str, bool]
    """Whether company.toml is the company's own: its data, and its wordings."""


@dataclass(frozen=True, slots=True)
class Call:
    """A form that somebody posted."""

    site: Site
    visitor: Visitor
    request: web.Request
    form: MultiMapping[Any]
    offers: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the name in the path, quoted for another path."""
        (named,) = self.request.match_info.values()
        return part(named)

    def id(self, what: str) -> UUID:
        return path_id(self.request, what)

    def text(self, field: str) -> str:
        return str(self.form.get(field, "")).strip()

    def chosen(self, field: str, among: Collection[str]) -> str:
        """:raises web.HTTPBadRequest: not a form of ours"""
        if (text := self.text(field)) not in among:
            raise web.HTTPBadRequest
        return text

    def time(self, field: str) -> str:
        """:raises web.HTTPBadRequest: not a form of ours"""
        try:
            return datetime.fromisoformat(self.text(field)).isoformat()
        except ValueError:
            raise web.HTTPBadRequest from None

    def reason(self) -> str:
        """:raises RefusedError:"""
        if (reason := reason_in(self.form)) is None:
            raise RefusedError("bad_reason", 422)
        return reason

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **named: str
    ) -> Answer:
        """Ask the gateway.

        :param named: what this page calls a fault instead
        :raises RefusedError: it refuses, or is away
        """
        return accepted(
            await self.site.gateway.ask(method, self.visitor, path, body, key=key), named
        )


def accepted(answer: Answer, named: Mapping[str, str] | None = None) -> Answer:
    """:raises RefusedError: the gateway refused it, or is away"""
    if answer.fault is not None:
        raise RefusedError((named or {}).get(answer.fault, answer.fault), answer.page_status)
    return answer


Act = Callable[[Call], Awaitable[Mapping[str, Any] | web.StreamResponse | None]]
"""Does what a form asks, and returns what the page shows of it. None: a redirect shows the page, so
that a reload sends nothing again. The page shows the text of a RefusedError."""


class Page:
    path: str
    roles: tuple[Role, ...]
    acting: tuple[Role, ...] = ()
    offers: Mapping[str, Any] = MappingProxyType({})
    """Among what its forms let people choose."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def acts(self) -> Mapping[str, Act]:
        """Return each act by its path below the page's."""
        return {}

    def guard(self, _below: str | None) -> Mapping[str, bool]:
        """Return `fresh` and `early` of Door.only, for an act; None: for the page itself."""
        return {}

    def add_to(self, app: web.Application) -> None:
        add = self.site.door.add
        add(app, "GET", self.path, self.show, *self.roles, **self.guard(None))
        for below, act in self.acts().items():
            posted, path = partial(self.posted, act=act), self.path + below
            add(app, "POST", path, posted, *self.acting, **self.guard(below))

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        """:param said: the result of a form: `fault`, `status`, and the template's other values"""
        raise NotImplementedError

    async def posted(self, request: web.Request, visitor: Visitor, act: Act) -> web.StreamResponse:
        call = Call(self.site, visitor, request, await plain_form.read(request), self.offers)
        try:
            said = await act(call)
        except RefusedError as error:
            said = {"fault": error.fault, "status": error.status, **error.shown}
        if isinstance(said, web.StreamResponse):
            return said
        if said is not None:
            return await self.show(request, visitor, **said)
        return redirect(self.path.format(**request.match_info))
