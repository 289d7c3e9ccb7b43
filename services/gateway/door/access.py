"""Access control before the body is read: client address, key, rate limits.

aiohttp-ratelimiter's decorator runs the check, then the handler or the 429. The check is our
Limiter, which tests and counts atomically: docs/decisions/0004.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import time
from typing import Literal, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from aiohttplimiter.limiter import BaseRateLimitDecorator, RateLimitExceeded
from limits.aio.storage import Storage
from limits.aio.strategies import MovingWindowRateLimiter
from multidict import istr

from libs.common.http.application import Problem, route_template
from libs.common.process.logs import log
from libs.domain.scopes import KEY, PERSON, Scope, operator_action
from libs.domain.signed_links import Claims, InvalidToken, Tokens
from services.gateway import metrics
from services.gateway.door.budgets import Budgets
from services.gateway.door.clients import (
    ADMIN_API_KEY,
    ADMIN_ONLY,
    API_KEY,
    OPERATOR_TOKEN,
    SCOPES,
    Client,
    Keys,
    Role,
    TrustedProxies,
    bucket_of,
    carried,
    network_of,
)
from services.gateway.door.keys import PREFIX, ApiKeys
from services.gateway.door.limits import Bucket, Decision, Limiter, Waits, Window, charge_of
from services.gateway.door.overrides import Overrides
from services.gateway.door.scopes import STAFF, Scopes

OPERATOR_AGE = timedelta(seconds=30)
"""The console signs a token for each call; roles that were taken away end with it."""

PATH_ID = "all"
"""The decorator ends each key with it. The raw path would do, but may contain an address."""

WITHDRAWALS = "withdrawal_budget"
"""Separate from the budget of opt-ins: neither may use up the other."""

PING = "ping"
"""The action of a signed link that has its token in its path."""

PATIENCE = 60
"""Seconds. Visitors who would wait longer are sent to a form, which still takes their contact."""

IDEMPOTENCY_KEY = istr("Idempotency-Key")

CONTACT = web.AppKey("contact", str)
"""The URL of that form."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a route requires of its callers."""

    scope: Scope | None = None
    """None: it is open to everyone."""
    trusts: frozenset[Scope] = frozenset()
    """Where it is open: which of them make a caller as trusted as one with SERVICE_API_KEY."""
    policy: Literal["chat", "api", "slack", "health", "console", "login", "none"] = "api"
    budget: Literal["chat_budget", "write_budget", "withdrawal_budget"] | None = None
    """What its valid requests are charged to; see budgets.py."""
    carried: bool = False
    """Its senders cannot set X-API-KEY: see `clients.carried`."""
    mail_action: str | None = None
    """Count signed links of this action by link: mailbox providers, and a company's jobs, have
    few addresses."""


@dataclass(slots=True)
class RequestContext:
    requires: Requirements
    client: Client
    handler: Handler
    refusal: Problem | None = None
    """The answer to a key in force that does not open this route."""
    staff: str = ""
    """`staff:<id>` of a person of the console, also where they are refused or the route is open."""
    windows: tuple[Window, ...] = ()
    """The key's own; empty: those of the policy."""
    policy: str = ""
    wide_key: str | None = None
    decision: Decision | None = None
    charge: Decision | None = None
    """What is given back if the request fails."""


CONTEXT = web.RequestKey("context", RequestContext)
# Set for the decorator: it calls `test` without it.
_request: ContextVar[web.Request] = ContextVar("request")


@dataclass(kw_only=True, eq=False)
class Access:
    keys: Keys
    api_keys: ApiKeys
    proxies: TrustedProxies
    tokens: Tokens | None
    pings: Tokens | None
    operators: Tokens | None
    limiter: Limiter
    budgets: Budgets
    waits: Waits
    overrides: Overrides
    shadow: bool

    def __post_init__(self) -> None:
        self._requirements: dict[web.AbstractRoute, Requirements] = {}
        self._limited = BaseRateLimitDecorator(
            db=cast("Storage", None),  # only its type is checked
            path_id=PATH_ID,
            keyfunc=self._key,
            moving_window=cast("MovingWindowRateLimiter", self),  # it calls test and hit
            ratelimit="1/second",  # required but unused: limits change at run time
            error_handler=_refuse,
        )(self._enter)

    def guard(self, route: web.AbstractRoute, requires: Requirements) -> None:
        self._requirements[route] = requires

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        requires = self._requirements.get(request.match_info.route, _UNMATCHED)
        forwarded = request.headers.getall(hdrs.X_FORWARDED_FOR, ())
        address, source = self.proxies.client_ip(request.remote, forwarded)
        headers = carried(request) if requires.carried else request.headers
        role, key = self.keys.role_of(headers, requires.scope)
        sees_persons = Scope.PERSONAL_DATA in SCOPES.get(role, ())
        client = Client(address, source, role, key, holder=role, sees_persons=sees_persons)
        context = request[CONTEXT] = RequestContext(requires, client, handler)
        if role is Role.PUBLIC:
            self._identify(request, context, headers)
        if requires.policy == "none":
            return await self._enter(request)
        _request.set(request)
        return await self._limited(request)

    def _identify(
        self, request: web.Request, context: RequestContext, headers: Mapping[str, str]
    ) -> None:
        """Look for an API key from the console, or a token of its staff."""
        if (token := headers.get(OPERATOR_TOKEN)) is not None:
            header: str | None = OPERATOR_TOKEN
            if (claims := self._operator(token, request)) is not None:
                id_, roles = claims.subject.partition(" ")[0], claims.purpose.split(",")
                held = frozenset[Scope]().union(*(STAFF.get(role, ()) for role in roles))
                operator, context.staff = f"{PERSON}{claims.subject}", f"{PERSON}{id_}"
                # Also where everybody is admitted: the record of the act says who did it.
                context.client = context.client._replace(operator=operator, roles=claims.purpose)
                self._admit(context, held, context.staff)
                return
        elif (given := headers.get(API_KEY, "")).startswith(PREFIX):
            header = API_KEY
            now = time()
            if (key := self.api_keys.find(given, now)) is not None:
                self.api_keys.count(key, now)
                context.windows = key.windows
                holder = f"{KEY}{key.id}"
                self._admit(context, key.scopes, holder, here=key.admits(context.client.ip))
                return
        else:
            header = self.keys.unknown_key_header(headers)
        if header is not None:
            metrics.KEYS_REJECTED.labels(header).inc()
            log.warning("key.rejected", header=header, network=network_of(context.client.ip))

    def _operator(self, token: str, request: web.Request) -> Claims | None:
        if self.operators is None:
            return None
        now, call = datetime.now(UTC), operator_action(request.method, request.rel_url.raw_path)
        try:
            claims = self.operators.verify(token, call, now, OPERATOR_AGE)
        except InvalidToken:
            return None
        # Hosts' clocks differ, but no one may sign for later.
        return claims if claims.issued_at <= (now + OPERATOR_AGE).timestamp() else None

    def _admit(
        self, context: RequestContext, held: Scopes, holder: str, *, here: bool = True
    ) -> None:
        """Admit a known caller if they may do this; otherwise treat them as unknown.

        :param here: whether the key is for the caller's network
        """
        scope = context.requires.scope
        if not held & (context.requires.trusts if scope is None else {scope}):
            context.refusal = Problem(403, detail=f"this needs the scope {scope}")
        elif not here:
            context.refusal = Problem(403, detail="this key is not for your network")
        else:
            admin = scope in ADMIN_ONLY
            role = Role.ADMIN if admin else Role.SERVICE
            operator = context.client.operator or holder
            context.client = context.client._replace(
                role=role,
                holder=holder,
                operator=operator,
                sees_persons=Scope.PERSONAL_DATA in held,
            )

    def _key(self, request: web.Request) -> str:
        context = request[CONTEXT]
        client = context.client
        if client.role is not Role.PUBLIC:
            context.policy = "service"
            return f"service:{client.role}" if client.holder == client.role else client.holder
        if context.staff:  # all of them come from the console's address
            context.policy = "service"
            return context.staff
        context.policy = context.requires.policy
        route = route_template(request)
        action = context.requires.mail_action
        if action is not None and (link := self._mailed_link(request, action)) is not None:
            return f"{context.policy}:{link}:{route}"
        address = client.ip
        if ":" in address:
            context.wide_key = f"{context.policy}:{network_of(address)}:{route}"
        return f"{context.policy}:{bucket_of(address)}:{route}"

    def _mailed_link(self, request: web.Request, action: str) -> str | None:
        tokens, token = self.tokens, request.query.get("token")
        if action == PING:
            tokens, token = self.pings, request.match_info["token"]
        if tokens is None or not token:
            return None
        try:
            tokens.verify(token, action, datetime.now(UTC))
        except InvalidToken:
            return None
        return "mail-" + hashlib.sha256(token.encode()).hexdigest()[:32]

    async def test(self, _item: object, key: str) -> bool:
        """Decide and count in one step; called by the decorator before the handler."""
        request = _request.get()
        context = request[CONTEXT]
        windows = context.windows or self.overrides.policies[context.policy]
        shadow = self.shadow and context.policy != "login"  # passwords are guessed in trials too
        if context.policy == "service" and not shadow:
            context.decision = await self.waits.decide(context.policy, key, windows)
        else:
            context.decision = await self.limiter.decide(
                context.policy, key, windows, context.wide_key, self._charge(request)
            )
        context.charge = context.decision.charge
        if shadow and not context.decision.admitted:
            log.info("limits.would_refuse", policy=context.policy)
        return context.decision.admitted or shadow

    def _charge(self, request: web.Request) -> Sequence[Bucket]:
        """Return what to charge with the limits, which saves a call.

        Not if the request may wait first, for its body or for another with its Idempotency-Key.
        """
        context = request[CONTEXT]
        budget = context.requires.budget
        if budget is None or context.policy == "service" or not request.content.is_eof():
            return ()
        if IDEMPOTENCY_KEY in request.headers:
            return ()
        (window,) = self.overrides.policies[budget]
        return charge_of(budget, window, network_of(context.client.ip))

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        context = request[CONTEXT]
        scope = context.requires.scope
        if scope is not None and context.client.role is Role.PUBLIC:
            if context.refusal is not None:
                raise context.refusal
            own = request.headers.get(API_KEY, "").startswith(PREFIX)
            header = ADMIN_API_KEY if scope in ADMIN_ONLY and not own else API_KEY
            if OPERATOR_TOKEN in request.headers:
                header = OPERATOR_TOKEN
            raise Problem(
                401,
                detail=f"this requires a valid key in {header}",
                headers={hdrs.WWW_AUTHENTICATE: f'ApiKey header="{header}"'},
            )
        try:
            response = await context.handler(request)
        except Problem as problem:
            await self.budgets.settle(context.charge, problem.status)
            raise
        await self.budgets.settle(context.charge, response.status)
        return response

    async def hit(self, _item: object, _key: str) -> None:
        """Do nothing: counting after the test would admit all concurrent requests."""


_UNMATCHED = Requirements()


def reads_polish(request: web.Request) -> bool:
    return request.headers.get(hdrs.ACCEPT_LANGUAGE, "").lower().startswith("pl")


def _refuse(request: web.Request, _: RateLimitExceeded) -> web.Response:
    return too_many(request).response()


def too_many(request: web.Request) -> Problem:
    """Say when to try again, and where a visitor can leave their contact until then."""
    context = request[CONTEXT]
    seconds = context.decision.retry_after if context.decision else 1
    polish = reads_polish(request)
    detail = (
        f"Zbyt wiele zapytań; spróbuj ponownie za {seconds} s."
        if polish
        else f"Too many requests; try again in {seconds} s."
    )
    members = {}
    if url := contact_url(request, "pl" if polish else "en"):
        members["contact"] = url
        detail += f" Zostaw nam kontakt: {url}" if polish else f" Leave us your contact: {url}"
    return Problem(429, detail=detail, headers={hdrs.RETRY_AFTER: str(seconds)}, members=members)


def contact_url(request: web.Request, language: str) -> str | None:
    """Return where a visitor can leave their contact, if a budget makes them wait for long."""
    context = request[CONTEXT]
    seconds = context.decision.retry_after if context.decision else 1
    form = request.app.get(CONTACT)
    if form is None or seconds <= PATIENCE or context.requires.budget in {None, WITHDRAWALS}:
        return None
    return f"{form}?language={language}"
