"""What every request passes before its body is looked at: who is it, how often, with which key.

The order of test, refusal and handler is aiohttp-ratelimiter's decorator. What it asks is ours, in
one atomic step: see docs/decisions/0004.
"""

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from aiohttplimiter.limiter import BaseRateLimitDecorator, RateLimitExceeded
from limits.aio.storage import Storage
from limits.aio.strategies import MovingWindowRateLimiter

from libs.common import logs
from libs.common.tokens import InvalidToken, Tokens
from libs.common.web import Problem, route_template
from services.gateway.clients import (
    ADMIN_API_KEY,
    API_KEY,
    Addresses,
    Client,
    Keys,
    Role,
    bucket_of,
)
from services.gateway.limits import Decision, Limiter
from services.gateway.overrides import Overrides

log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks of its callers."""

    role: Role = Role.PUBLIC
    policy: Literal["chat", "api"] | None = "api"
    mail_action: str | None = None
    """A mailed link of this action is counted by link: mailbox providers have few addresses."""


@dataclass(slots=True)
class Visit:
    access: Access
    client: Client
    handler: Handler
    policy: str = ""
    decision: Decision | None = None


VISIT = web.RequestKey("visit", Visit)
_visit: ContextVar[Visit] = ContextVar("visit")  # the decorator's test is not given the request


class Door:
    def __init__(
        self,
        *,
        keys: Keys,
        addresses: Addresses,
        tokens: Tokens | None,
        limiter: Limiter,
        overrides: Overrides,
        shadow: bool,
    ) -> None:
        self._keys = keys
        self._addresses = addresses
        self._tokens = tokens
        self._limiter = limiter
        self._overrides = overrides
        self._shadow = shadow
        self._access: dict[web.AbstractRoute, Access] = {}
        self._limited = BaseRateLimitDecorator(
            db=cast("Storage", None),  # asked only whether it is the package's memory storage
            path_id="all",  # without one the raw path, which may hold an address, joins the key
            keyfunc=self._key,
            moving_window=cast("MovingWindowRateLimiter", self),  # of which it calls test and hit
            ratelimit="1/second",  # must be given, is not used: limits change at run time
            error_handler=_refuse,
        )(_enter)

    def guard(self, route: web.AbstractRoute, access: Access) -> None:
        self._access[route] = access

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        access = self._access.get(request.match_info.route, _UNMATCHED)
        forwarded = request.headers.getall(hdrs.X_FORWARDED_FOR, ())
        address, source = self._addresses.resolve(request.remote, forwarded)
        client = Client(address, source, self._keys.role(request.headers, access.role))
        visit = request[VISIT] = Visit(access, client, handler)
        if access.policy is None:
            return await _enter(request)
        _visit.set(visit)
        return await self._limited(request)

    def _key(self, request: web.Request) -> str:
        visit = request[VISIT]
        if visit.client.role is not Role.PUBLIC:
            visit.policy = "service"
            return f"service:{visit.client.role}"
        visit.policy = visit.access.policy or "api"
        who = self._mailed_link(request) or bucket_of(visit.client.address)
        return f"{visit.policy}:{who}:{route_template(request)}"

    def _mailed_link(self, request: web.Request) -> str | None:
        action, token = request[VISIT].access.mail_action, request.query.get("token")
        if self._tokens is None or action is None or not token:
            return None
        try:
            self._tokens.verify(token, action, datetime.now(UTC))
        except InvalidToken:
            return None
        return "mail-" + hashlib.sha256(token.encode()).hexdigest()[:32]

    async def test(self, _item: object, key: str) -> bool:
        """Decide and count in one step; the decorator calls it before the handler."""
        visit = _visit.get()
        windows = self._overrides.policies[visit.policy]
        visit.decision = await self._limiter.decide(visit.policy, key, windows)
        if self._shadow and not visit.decision.admitted:
            log.info("limits.would_refuse", policy=visit.policy)
        return visit.decision.admitted or self._shadow

    async def hit(self, _item: object, _key: str) -> None:
        """Count nothing: what is counted only after a test admits all who test meanwhile."""


_UNMATCHED = Access()


def reads_polish(request: web.Request) -> bool:
    return request.headers.get(hdrs.ACCEPT_LANGUAGE, "").lower().startswith("pl")


async def _enter(request: web.Request) -> web.StreamResponse:
    visit = request[VISIT]
    needed = visit.access.role
    if needed is not Role.PUBLIC and visit.client.role is not needed:
        header = ADMIN_API_KEY if needed is Role.ADMIN else API_KEY
        raise Problem(
            401,
            detail=f"this needs a valid key in {header}",
            headers={hdrs.WWW_AUTHENTICATE: f'ApiKey header="{header}"'},
        )
    return await visit.handler(request)


def _refuse(request: web.Request, _: RateLimitExceeded) -> web.Response:
    decision = request[VISIT].decision
    seconds = decision.retry_after if decision else 1
    detail = (
        f"Zbyt wiele zapytań; spróbuj ponownie za {seconds} s."
        if reads_polish(request)
        else f"Too many requests; try again in {seconds} s."
    )
    return Problem(429, detail=detail, headers={hdrs.RETRY_AFTER: str(seconds)}).response()
