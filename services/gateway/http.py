"""Routes: what the gateway answers itself, and who owns the rest."""

import json
from base64 import b64decode, b64encode
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from libs.common import logs
from libs.common.web import HEALTH_PATH, Model, Problem, json_response, validate
from services.gateway.bodies import Bodies, may_come, parts
from services.gateway.clients import Role
from services.gateway.door import VISIT, Access, Door
from services.gateway.health import Health
from services.gateway.idempotency import Idempotency, key_of
from services.gateway.intake import Intake
from services.gateway.limits import Limit
from services.gateway.messages import AlertRequest, BatchRequest, accepted, alert_id
from services.gateway.overrides import ChangeUnknown, Overrides
from services.gateway.proxy import forward, outgoing_headers
from services.gateway.redis_pipe import RedisAway
from services.gateway.targets import Targets
from services.gateway.upstream import Upstream

KEPT_ANSWER = 16 * 1024  # a process may have to hold 10,000 of them while Redis is away

PUBLIC = Access()
CHAT = Access(policy="chat")
UNSUBSCRIBE_LINK = Access(mail_action="unsubscribe")
OPT_IN_LINK = Access(mail_action="opt-in")
ERASURE_LINK = Access(mail_action="erasure")
SERVICE = Access(Role.SERVICE)
ADMIN = Access(Role.ADMIN)
UNLIMITED = Access(policy=None)


@dataclass(frozen=True, slots=True)
class Forwarded:
    method: str
    path: str
    owner: str
    access: Access
    once: bool = False
    """Idempotency-Key is honoured."""
    streamed: bool = False
    """The body may be large, and is sent on as it comes."""


FORWARDED = (
    Forwarded("POST", "/api/chatbot/chat", "followups", CHAT, once=True),
    Forwarded("POST", "/api/followups", "followups", SERVICE, once=True),
    Forwarded("GET", "/api/followups", "followups", SERVICE),
    Forwarded("POST", "/api/followups/stop", "followups", SERVICE),
    # Not `stop`, or its 405 would offer DELETE.
    Forwarded("DELETE", "/api/followups/{id:(?!stop$)[^{}/]+}", "followups", SERVICE),
    Forwarded("POST", "/api/leads/import", "followups", SERVICE, streamed=True),
    Forwarded("POST", "/api/opt-in", "consent", PUBLIC),
    Forwarded("POST", "/api/unsubscribe", "consent", PUBLIC),
    Forwarded("GET", "/api/unsubscribe/status/{email}", "consent", UNSUBSCRIBE_LINK),
    Forwarded("POST", "/api/revoke-consent", "consent", PUBLIC),
    Forwarded("GET", "/unsubscribe", "consent", UNSUBSCRIBE_LINK),
    Forwarded("POST", "/unsubscribe", "consent", UNSUBSCRIBE_LINK),
    Forwarded("GET", "/preferences", "consent", UNSUBSCRIBE_LINK),
    Forwarded("POST", "/preferences", "consent", UNSUBSCRIBE_LINK),
    Forwarded("GET", "/opt-in/confirm", "consent", OPT_IN_LINK),
    Forwarded("POST", "/opt-in/confirm", "consent", OPT_IN_LINK),
    Forwarded("GET", "/erasure/confirm", "consent", ERASURE_LINK),
    Forwarded("POST", "/erasure/confirm", "consent", ERASURE_LINK),
    Forwarded("GET", "/api/consent/audit/verify", "consent", ADMIN),
    Forwarded("POST", "/api/consent/audit/verify", "consent", ADMIN),
    Forwarded("GET", "/api/consent/audit/checkpoints", "consent", ADMIN),
    Forwarded("GET", "/api/consent/audit/{email}", "consent", ADMIN),
    Forwarded("GET", "/api/consent/export/{email}", "consent", ADMIN),
    Forwarded("POST", "/api/consent/erase", "consent", ADMIN),
    Forwarded("POST", "/api/consent/replay-erasures", "consent", ADMIN),
    Forwarded("GET", "/api/dlq/pending", "alerts", ADMIN),
    Forwarded("GET", "/api/dlq/failed", "alerts", ADMIN),
    Forwarded("GET", "/api/dlq/in-doubt", "alerts", ADMIN),
    Forwarded("GET", "/api/dlq/stats", "alerts", ADMIN),
    Forwarded("POST", "/api/dlq/retry", "alerts", ADMIN),
    Forwarded("POST", "/api/dlq/discard", "alerts", ADMIN),
    Forwarded("POST", "/api/dlq/resolve", "alerts", ADMIN),
    Forwarded("POST", "/api/dlq/cleanup", "alerts", ADMIN),
    Forwarded("GET", "/api/breakers", "alerts", ADMIN),
    Forwarded("POST", "/api/breakers/{target}/reset", "alerts", ADMIN),
    Forwarded("GET", "/api/ledger/check", "alerts", ADMIN),
    Forwarded("POST", "/api/migration/create-dead-letter-queue", "alerts", ADMIN),
    Forwarded("GET", "/api/migration/dlq-status", "alerts", ADMIN),
)


class LimitChanges(Model):
    """A limit to set; null takes an override back."""

    chat: Limit | None = None
    hour: Limit | None = None
    minute: Limit | None = None


class Api:
    def __init__(
        self,
        *,
        bodies: Bodies,
        upstreams: Mapping[str, Upstream],
        intake: Intake,
        targets: Targets,
        idempotency: Idempotency,
        overrides: Overrides,
        shadow: bool,
        health: Health,
        purge: Callable[[], Awaitable[int]],
    ) -> None:
        self._bodies = bodies
        self._upstreams = upstreams
        self._intake = intake
        self._targets = targets
        self._idempotency = idempotency
        self._overrides = overrides
        self._shadow = shadow
        self._health = health
        self._purge = purge

    def add_routes(self, app: web.Application, door: Door) -> None:
        def add(method: str, path: str, access: Access, handler: Handler) -> None:
            for each in (method, hdrs.METH_HEAD) if method == hdrs.METH_GET else (method,):
                route = app.router.add_route(each, path, handler, expect_handler=_expect_later)
                door.guard(route, access)

        for known in app.router.routes():
            if known.resource is not None and known.resource.canonical == HEALTH_PATH:
                door.guard(known, UNLIMITED)
        add("GET", "/api/health", UNLIMITED, self.alive)
        add("GET", "/api/health/deep", UNLIMITED, self.deep)
        add("POST", "/api/alerts", SERVICE, self.post_alert)
        add("POST", "/api/alerts/batch", SERVICE, self.post_batch)
        # Not `batch`, or its 405 would offer GET.
        add("GET", "/api/alerts/{id:(?!batch$)[^{}/]+}", SERVICE, self.get_alert)
        add("GET", "/api/ratelimits", ADMIN, self.get_limits)
        add("PUT", "/api/ratelimits", ADMIN, self.put_limits)
        add("POST", "/api/cache/cleanup", ADMIN, self.clean_cache)
        for each in FORWARDED:
            add(each.method, each.path, each.access, self._forwarding(each))

    def _forwarding(self, route: Forwarded) -> Handler:
        upstream = self._upstreams[route.owner]

        async def plain(request: web.Request) -> web.StreamResponse:
            return await self._forward(request, upstream, await self._bodies.read(request))

        async def once(request: web.Request) -> web.StreamResponse:
            body = await self._bodies.read(request)
            key = key_of(request)
            client = request[VISIT].client
            holder = client.role if client.role is not Role.PUBLIC else _session(body)
            if key is None or holder is None:
                return await self._forward(request, upstream, body)
            claim = await self._idempotency.claim(key, route=route.path, holder=holder, body=body)
            if claim.result is not None:
                return _unpack(claim.result)
            try:
                response = await self._forward(request, upstream, body)
            except Exception:
                await self._idempotency.give_back(claim)
                raise
            result = _pack(response)
            if result is None:
                await self._idempotency.give_back(claim)
            else:
                await self._idempotency.keep(claim, result)
            return response

        async def streamed(request: web.Request) -> web.StreamResponse:
            await may_come(request)
            return await self._forward(request, upstream, parts(request))

        return once if route.once else streamed if route.streamed else plain

    async def _forward(
        self, request: web.Request, upstream: Upstream, body: bytes | AsyncIterable[bytes]
    ) -> web.StreamResponse:
        headers = outgoing_headers(request, request[VISIT].client, _request_id())
        return await forward(request, upstream, headers, body or None)

    async def alive(self, _: web.Request) -> web.Response:
        return json_response({"status": "healthy"})

    async def deep(self, _: web.Request) -> web.Response:
        found = await self._health.deep()
        return json_response(found, status=503 if found["status"] == "unhealthy" else 200)

    async def post_alert(self, request: web.Request) -> web.Response:
        body = await self._json_body(request)
        alert = validate(body, AlertRequest)
        self._check([alert], lambda _, field: field)

        def answer(ids: Sequence[str]) -> dict[str, Any]:
            return _link(ids[0])

        return await self._accept(request, body, [alert], answer, batch=False)

    async def post_batch(self, request: web.Request) -> web.Response:
        body = await self._json_body(request)
        alerts = validate(body, BatchRequest).alerts
        self._check(alerts, lambda index, field: f"alerts.{index}.{field}")

        def answer(ids: Sequence[str]) -> dict[str, Any]:
            return {"accepted": len(ids), "items": [_link(id_) for id_ in ids]}

        return await self._accept(request, body, alerts, answer, batch=True)

    def _check(self, alerts: Sequence[AlertRequest], name: Callable[[int, str], str]) -> None:
        errors = []
        for index, alert in enumerate(alerts):
            if not self._targets.knows_event(alert.event_type):
                errors.append((name(index, "event_type"), "not an event type that has a route"))
            if alert.target is not None and alert.target not in self._targets.names:
                errors.append((name(index, "target"), "not a configured target"))
        if errors:
            raise Problem(422, detail="one or more fields are at fault", errors=errors)

    async def _accept(
        self,
        request: web.Request,
        body: bytes,
        alerts: Sequence[AlertRequest],
        answer: Callable[[Sequence[str]], dict[str, Any]],
        *,
        batch: bool,
    ) -> web.Response:
        key, caller = key_of(request), str(request[VISIT].client.role)
        indexes = range(len(alerts)) if batch else (None,)
        ids = [alert_id(caller, key, body, index) for index in indexes]
        response = json_response(answer(ids), status=202)
        if key is None:
            await self._take(alerts, ids)
            return response
        route = request.match_info.route.resource
        assert route is not None  # noqa: S101 - the handler was found by it
        claim = await self._idempotency.claim(key, route=route.canonical, holder=caller, body=body)
        if claim.result is None:  # else they were taken before; the ids tell all of the answer
            try:
                await self._take(alerts, ids)
            except Exception:
                await self._idempotency.give_back(claim)
                raise
            await self._idempotency.keep(claim, b"")
        return response

    async def _take(self, alerts: Sequence[AlertRequest], ids: Sequence[str]) -> None:
        now = datetime.now(UTC)
        await self._intake.accept(
            [accepted(alert, id_, now) for alert, id_ in zip(alerts, ids, strict=True)],
            _request_id(),
        )

    async def _json_body(self, request: web.Request) -> bytes:
        if request.content_type != "application/json":
            raise Problem(415, detail="send application/json")
        return await self._bodies.read(request)

    async def get_alert(self, request: web.Request) -> web.StreamResponse:
        response = await self._forward(request, self._upstreams["alerts"], b"")
        if response.status == 404:  # just accepted, perhaps: the ledger is a moment behind
            response.headers.setdefault(hdrs.RETRY_AFTER, "1")
        return response

    async def get_limits(self, _: web.Request) -> web.Response:
        rules = self._overrides.rules
        return json_response(
            {
                **{name: str(window) for name, window in rules.windows.items()},
                "sources": rules.sources,
                "mode": "shadow" if self._shadow else "enforce",
            }
        )

    async def put_limits(self, request: web.Request) -> web.Response:
        body = await self._json_body(request)
        changes = validate(body, LimitChanges).model_dump(exclude_unset=True)
        if changes:
            try:
                await self._overrides.change(changes)
            except RedisAway:
                raise Problem(
                    503,
                    detail="limits are kept in Redis, which is away; nothing was changed",
                    headers={hdrs.RETRY_AFTER: "5"},
                ) from None
            except ChangeUnknown:
                raise Problem(
                    503,
                    detail="Redis did not say in time whether the limits were changed: look with "
                    "GET in some seconds, or repeat it",
                    headers={hdrs.RETRY_AFTER: "5"},
                ) from None
        return await self.get_limits(request)

    async def clean_cache(self, _: web.Request) -> web.Response:
        try:
            return json_response({"purged": await self._purge()})
        except TimeoutError:
            raise Problem(
                503,
                detail="the supervisor of the workers does not answer; cleaning up may be repeated",
                headers={hdrs.RETRY_AFTER: "5"},
            ) from None


def _link(id_: str) -> dict[str, Any]:
    return {"id": id_, "status_url": f"/api/alerts/{id_}"}


def _request_id() -> str:
    return logs.request_id.get() or ""


async def _expect_later(_: web.Request) -> None:
    """Leave `Expect: 100-continue` to `bodies`: a body that nobody will read is not asked for."""


def _session(body: bytes) -> str | None:
    """Return the chat's session; None where the owner will refuse the body anyway."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    session = data.get("session_id") if isinstance(data, dict) else None
    return f"session:{session}" if isinstance(session, str) else None


def _pack(response: web.StreamResponse) -> bytes | None:
    """Return what is kept of an answer; None for one that is no success or too large."""
    if not (isinstance(response, web.Response) and response.status < 300):
        return None
    body = response.body
    if not isinstance(body, bytes) or len(body) > KEPT_ANSWER:
        return None
    kept = [response.status, response.headers.get(hdrs.CONTENT_TYPE, ""), b64encode(body).decode()]
    return json.dumps(kept).encode()


def _unpack(result: bytes) -> web.Response:
    status, content_type, body = json.loads(result)
    return web.Response(
        status=status, headers={hdrs.CONTENT_TYPE: content_type}, body=b64decode(body)
    )
