"""Routes: the gateway's own, and those forwarded to a service."""

import json
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import TypeAdapter, create_model

from libs.common import beside
from libs.common.database.redis_pipeline import RedisUnavailable
from libs.common.http.application import (
    HEALTH_PATH,
    JSON,
    OVER_BUDGET,
    Model,
    Problem,
    json_response,
    media_type,
    validate,
)
from libs.common.process import logs
from libs.domain.scopes import Scope
from services.gateway import slack
from services.gateway.door.access import (
    CONTACT,
    CONTEXT,
    WITHDRAWALS,
    Access,
    Requirements,
    too_many,
)
from services.gateway.door.body_budget import BodyBudget, accept_body, parts
from services.gateway.door.budgets import Budgets
from services.gateway.door.clients import Role
from services.gateway.door.limits import Limit, Waits
from services.gateway.door.overrides import CHANGEABLE, ChangeUnknown, Overrides
from services.gateway.health import FINDINGS, Health
from services.gateway.intake import senders
from services.gateway.intake.action_record import ActionRecord
from services.gateway.intake.alerts import Intake
from services.gateway.intake.forms.routes import FormRoutes
from services.gateway.intake.idempotency import Idempotency, key_of
from services.gateway.intake.messages import AlertRequest, BatchRequest, accepted, alert_id
from services.gateway.intake.pings import PingRoutes
from services.gateway.intake.sessions import holder_of, issued
from services.gateway.proxy.forward import forward, outgoing_headers
from services.gateway.proxy.upstream import Upstream
from services.gateway.targets import Targets

KEPT_ANSWER = 16 * 1024  # while Redis is unavailable, a process may keep 10,000 of them


@dataclass(frozen=True, slots=True)
class Route:
    """A row of routes.toml."""

    method: str
    path: str
    upstream: str
    requires: Requirements
    once: bool = False
    streamed: bool = False
    handler: str = ""


def _routes() -> Iterator[Route]:
    table = beside.toml(__file__, "routes.toml")
    named = TypeAdapter(dict[str, Requirements]).validate_python(table.pop("requirements"))
    for upstream, paths in table.items():
        for path, methods in paths.items():
            for method, given in methods.items():
                how = {"requires": given} if isinstance(given, str) else given
                requires = named.get(how["requires"]) or Requirements(Scope(how["requires"]))
                yield Route(method, path, upstream, **how | {"requires": requires})


ROUTES = tuple(_routes())
FORWARDED = tuple(route for route in ROUTES if not route.handler)

_LIMITS: Any = dict.fromkeys(CHANGEABLE, (Limit | None, None))  # null removes an override
LimitChanges = create_model("LimitChanges", __base__=Model, **_LIMITS)


@dataclass(kw_only=True, eq=False)
class Api:
    body_budget: BodyBudget
    budgets: Budgets
    upstreams: Mapping[str, Upstream]
    intake: Intake
    targets: Targets
    idempotency: Idempotency
    overrides: Overrides
    waits: Waits
    shadow: bool
    slack_secret: str | None
    forms: FormRoutes
    pings: PingRoutes
    actions: ActionRecord
    health: Health
    leaving: Callable[[], bool]
    purge: Callable[[], int]

    def add_routes(self, app: web.Application, access: Access) -> None:
        if self.forms.contact is not None:
            app[CONTACT] = self.forms.contact
        for known in app.router.routes():
            if known.resource is not None and known.resource.canonical == HEALTH_PATH:
                access.guard(known, Requirements(policy="none"))
        for each in ROUTES:
            if not each.handler and each.upstream not in self.upstreams:  # there may be no console
                continue
            handler = attrgetter(each.handler)(self) if each.handler else self._forwarding(each)
            for method in (each.method, "HEAD") if each.method == "GET" else (each.method,):
                route = app.router.add_route(
                    method, each.path, handler, expect_handler=_expect_later
                )
                access.guard(route, each.requires)

    def _forwarding(self, route: Route) -> Handler:
        upstream = self.upstreams[route.upstream]

        async def plain(request: web.Request) -> web.StreamResponse:
            return await self._forward(request, upstream, await self.body_budget.read(request))

        async def once(request: web.Request) -> web.StreamResponse:
            body = await self.body_budget.read(request)
            key = key_of(request)
            sent = body
            if route.requires.policy == "chat" and media_type(request.headers) == JSON:
                sent = issued(body)
            client = request[CONTEXT].client
            holder: str | None = client.holder
            if client.role is Role.PUBLIC:
                holder = key and holder_of(body, key)
            if key is None or holder is None:
                return await self._forward(request, upstream, sent)
            async with self.idempotency.once(
                key, route=route.path, holder=holder, body=body
            ) as claim:
                if claim.result is not None:
                    return _unpack(claim.result)
                response = await self._forward(request, upstream, sent)
                claim.keep = _pack(response)
            return response

        async def streamed(request: web.Request) -> web.StreamResponse:
            await accept_body(request)
            return await self._forward(request, upstream, parts(request))

        return once if route.once else streamed if route.streamed else plain

    async def _forward(
        self, request: web.Request, upstream: Upstream, body: bytes | AsyncIterable[bytes]
    ) -> web.StreamResponse:
        context = request[CONTEXT]
        headers = outgoing_headers(request, context.client, _request_id())
        if (budget := context.requires.budget) is not None:
            (window,) = self.overrides.policies[budget]
            charge = await self.budgets.charge(context.client, budget, window, made=context.charge)
            if charge is not None and not charge.admitted:
                if budget != WITHDRAWALS:
                    context.decision = charge
                    raise too_many(request)
                headers[OVER_BUDGET] = "1"  # it is not refused, but no link is mailed for it
            context.charge = charge
        return await forward(request, upstream, headers, body or None)

    async def alive(self, _: web.Request) -> web.Response:
        return json_response({"status": "healthy"})

    async def ready(self, _: web.Request) -> web.Response:
        """For a load balancer: 503 after SIGTERM, while the process still answers for a while."""
        if self.leaving():
            return json_response({"status": "leaving"}, status=503)
        return json_response({"status": "ready"})

    async def deep(self, request: web.Request) -> web.Response:
        role = request[CONTEXT].client.role
        if FINDINGS in request.query:
            if role is not Role.ADMIN:
                raise Problem(401, detail="findings require the admin key")
            return json_response(await self.health.thorough())
        found = await self.health.deep(named=role is not Role.PUBLIC)
        return json_response(found, status=503 if found["status"] == "unhealthy" else 200)

    async def post_alert(self, request: web.Request) -> web.Response:
        body = await self._json_body(request)
        alert = validate(body, AlertRequest)
        self._check({"": alert})
        (id_,) = await self._accept(request, body, [alert], [None])
        return json_response(_link(id_), status=202)

    async def post_batch(self, request: web.Request) -> web.Response:
        body = await self._json_body(request)
        return await self._accept_all(request, body, validate(body, BatchRequest).alerts)

    async def post_from(self, request: web.Request) -> web.Response:
        """Accept what another program sends in its own form, all of it or nothing."""
        body = await self._json_body(request)
        return await self._accept_all(
            request, body, senders.alerts(request.match_info["sender"], body)
        )

    async def _accept_all(
        self, request: web.Request, body: bytes, alerts: Sequence[AlertRequest]
    ) -> web.Response:
        self._check({f"alerts.{index}.": alert for index, alert in enumerate(alerts)})
        ids = await self._accept(request, body, alerts, range(len(alerts))) if alerts else []
        return json_response(
            {"accepted": len(ids), "items": [_link(id_) for id_ in ids]}, status=202
        )

    def _check(self, alerts: Mapping[str, AlertRequest]) -> None:
        errors = []
        for at, alert in alerts.items():
            if not self.targets.knows_event(alert.event_type):
                errors.append((f"{at}event_type", "no route is configured for this event type"))
            if alert.target is not None and alert.target not in self.targets.names:
                errors.append((f"{at}target", "this target is not configured"))
        if errors:
            raise Problem(422, detail="one or more fields are invalid", errors=errors)

    async def _accept(
        self,
        request: web.Request,
        body: bytes,
        alerts: Sequence[AlertRequest],
        indexes: Sequence[int | None],
    ) -> list[str]:
        """:param indexes: of a batch's alerts, part of their ids"""
        key, caller = key_of(request), request[CONTEXT].client.holder
        ids = [alert_id(caller, key, body, index) for index in indexes]
        if key is None:
            await self._take(alerts, ids, len(body), caller)
            return ids
        route = request.match_info.route.resource
        assert route is not None  # noqa: S101 - the handler was found by it
        async with self.idempotency.once(
            key, route=route.canonical, holder=caller, body=body
        ) as claim:
            if claim.result is None:  # else they were accepted before; the response needs the ids
                await self._take(alerts, ids, len(body), caller)
                claim.keep = b""
        return ids

    async def _take(
        self, alerts: Sequence[AlertRequest], ids: Sequence[str], size: int, caller: str
    ) -> None:
        now, request_id = datetime.now(UTC), _request_id()
        taken = [  # one after another, in the caller's order
            accepted(alert, id_, now + timedelta(microseconds=place), request_id, caller)
            for place, (alert, id_) in enumerate(zip(alerts, ids, strict=True))
        ]
        await self.intake.accept(taken, request_id, size)

    async def _json_body(self, request: web.Request) -> bytes:
        if media_type(request.headers) != JSON:
            raise Problem(415, detail=f"the content type must be {JSON}")
        return await self.body_budget.read(request)

    async def get_alert(self, request: web.Request) -> web.StreamResponse:
        response = await self._forward(request, self.upstreams["alerts"], b"")
        if response.status == 404:  # perhaps just accepted: the ledger lags a moment behind
            response.headers.setdefault(hdrs.RETRY_AFTER, "1")
        return response

    async def moved(self, _: web.Request) -> web.Response:
        """Redirect links of an older release to the console, and show nothing."""
        return web.Response(status=303, headers={hdrs.LOCATION: "/console/leads"})

    async def slack_action(self, request: web.Request) -> web.StreamResponse:
        """Forward what Slack has signed; alerts relies on this check."""
        if self.slack_secret is None:
            raise Problem(404, detail="SLACK_SIGNING_SECRET is not set")
        body = await self.body_budget.read(request)
        payload = slack.payload_of(self.slack_secret, request.headers, body, time.time())
        headers = outgoing_headers(request, request[CONTEXT].client, _request_id())
        headers[hdrs.CONTENT_TYPE] = JSON
        return await forward(request, self.upstreams["alerts"], headers, payload)

    async def get_limits(self, _: web.Request) -> web.Response:
        rules = self.overrides.rules
        return json_response(
            {
                **{name: str(schedule) for name, schedule in rules.schedules.items()},
                "now": {name: str(window) for name, window in rules.now().items()},
                "service_wait": self.waits.shown(),
                "sources": rules.sources,
                "mode": "shadow" if self.shadow else "enforce",
            }
        )

    async def put_limits(self, request: web.Request) -> web.Response:
        body = await self._json_body(request)
        changes = validate(body, LimitChanges).model_dump(exclude_unset=True)
        if changes:
            ref = " ".join(f"{name}={limit or 'configured'}" for name, limit in changes.items())
            await self.actions.intend(request, "limits.change", "limits", ref)
            try:
                await self.overrides.change(changes)
            except (RedisUnavailable, ChangeUnknown) as error:
                detail = (
                    "Redis did not confirm the change in time; check with GET in a few seconds, or "
                    "repeat the request"
                    if isinstance(error, ChangeUnknown)
                    else "Redis, which keeps the limits, is unavailable; nothing was changed"
                )
                raise Problem(503, detail=detail, headers={hdrs.RETRY_AFTER: "5"}) from None
        return await self.get_limits(request)

    async def clean_cache(self, request: web.Request) -> web.Response:
        await self.actions.intend(request, "cache.clean", "cache", "gateway")
        return json_response({"purged": self.purge()})


def _link(id_: str) -> dict[str, Any]:
    return {"id": id_, "status_url": f"/api/alerts/{id_}"}


def _request_id() -> str:
    return logs.request_id.get() or ""


async def _expect_later(_: web.Request) -> None:
    """Leave `Expect: 100-continue` to `accept_body`, which asks for no body that is not read."""


def _pack(response: web.StreamResponse) -> bytes | None:
    """Serialise a response to keep; None if it is not successful or too large."""
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
