"""Routes: the gateway's own, and those forwarded to a service."""

import json
import time
from base64 import b64decode, b64encode
from collections.abc import (
    AsyncIterable,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from libs.common.database.redis_pipeline import RedisUnavailable
from libs.common.http.application import (
    HEALTH_PATH,
    JSON,
    OVER_BUDGET,
    Model,
    Problem,
    json_response,
    validate,
)
from libs.common.http.heads import media_type
from libs.common.process import logs
from libs.domain.scopes import Scope
from services.gateway import slack
from services.gateway.door.access import (
    CONTACT,
    CONTEXT,
    PING,
    WITHDRAWALS,
    Access,
    Requirements,
    too_many,
)
from services.gateway.door.body_budget import BodyBudget, accept_body, parts
from services.gateway.door.budgets import Budgets
from services.gateway.door.clients import Role
from services.gateway.door.limits import Limit, Waits
from services.gateway.door.overrides import ChangeUnknown, Overrides
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

PUBLIC = Requirements()
CHAT = Requirements(policy="chat", budget="chat_budget", trusts=frozenset({Scope.LEADS_WRITE}))
OPT_IN = Requirements(budget="write_budget", trusts=frozenset({Scope.LEADS_WRITE}))
WITHDRAWAL = Requirements(budget="withdrawal_budget", trusts=frozenset({Scope.LEADS_WRITE}))
STATUS = Requirements(
    mail_action="unsubscribe", trusts=frozenset({Scope.CONSENT_READ, Scope.LEADS_READ})
)
FORM = Requirements(trusts=frozenset({Scope.LEADS_WRITE}))
UNSUBSCRIBE_LINK = Requirements(mail_action="unsubscribe")
OPT_IN_LINK = Requirements(mail_action="opt-in")
ERASURE_LINK = Requirements(mail_action="erasure")
CARRIED = Requirements(Scope.ALERTS_WRITE, carried=True)
PINGED = Requirements(mail_action=PING)
SLACK = Requirements(policy="slack")
HEALTH = Requirements(policy="health", trusts=frozenset({Scope.DLQ_READ}))
UNLIMITED = Requirements(policy=None)


def needs(scope: Scope) -> Requirements:
    return Requirements(scope)


@dataclass(frozen=True, slots=True)
class Forwarded:
    method: str
    path: str
    upstream: str
    requires: Requirements
    once: bool = False
    """Honour Idempotency-Key."""
    streamed: bool = False
    """Stream the body, which may be large."""


FORWARDED = (
    Forwarded("GET", "/api/chatbot/chat", "followups", PUBLIC),
    Forwarded("POST", "/api/chatbot/chat", "followups", CHAT, once=True),
    Forwarded("GET", "/chat", "followups", PUBLIC),
    Forwarded("POST", "/chat", "followups", CHAT),
    Forwarded("POST", "/api/followups", "followups", needs(Scope.FOLLOWUPS_WRITE), once=True),
    Forwarded("GET", "/api/followups", "followups", needs(Scope.FOLLOWUPS_READ)),
    Forwarded("POST", "/api/followups/stop", "followups", needs(Scope.FOLLOWUPS_WRITE)),
    # Not `stop`, or its 405 would offer DELETE.
    Forwarded(
        "DELETE", "/api/followups/{id:(?!stop$)[^{}/]+}", "followups", needs(Scope.FOLLOWUPS_WRITE)
    ),
    Forwarded("POST", "/api/leads/import", "followups", needs(Scope.LEADS_IMPORT), streamed=True),
    Forwarded("POST", "/api/leads/correct", "followups", needs(Scope.CONSENT_ACT)),
    Forwarded("GET", "/api/leads", "followups", needs(Scope.LEADS_READ)),
    Forwarded("GET", "/api/leads/stats", "followups", needs(Scope.LEADS_READ)),
    Forwarded("GET", "/api/leads/suspected", "followups", needs(Scope.LEADS_READ)),
    Forwarded("POST", "/api/leads/suspected/{id}/release", "followups", needs(Scope.LEADS_WRITE)),
    Forwarded("POST", "/api/leads/suspected/{id}/discard", "followups", needs(Scope.LEADS_WRITE)),
    # Not `import`, or its 405 would offer GET.
    Forwarded(
        "GET",
        "/api/leads/{id:(?!import$|correct$|stats$|suspected$)[^{}/]+}",
        "followups",
        needs(Scope.LEADS_READ),
    ),
    *(
        Forwarded("POST", f"/api/leads/{{id}}/{act}", "followups", needs(Scope.LEADS_WRITE))
        for act in ("state", "undo", "owner", "facts", "notes", "calls")
    ),
    Forwarded("POST", "/api/mail/inbound", "followups", needs(Scope.MAIL_INBOUND), streamed=True),
    Forwarded("GET", "/api/mail/undeliverable", "followups", needs(Scope.FOLLOWUPS_READ)),
    Forwarded(
        "POST",
        "/api/mail/undeliverable/{id}/retry",
        "followups",
        needs(Scope.FOLLOWUPS_WRITE),
    ),
    Forwarded("GET", "/api/mail/rates", "followups", needs(Scope.DLQ_READ)),
    Forwarded("GET", "/a/{token}", "alerts", PUBLIC),
    Forwarded("POST", "/a/{token}", "alerts", PUBLIC),
    Forwarded("POST", "/api/opt-in", "consent", OPT_IN),
    Forwarded("POST", "/api/unsubscribe", "consent", WITHDRAWAL),
    Forwarded("GET", "/api/unsubscribe/status/{email}", "consent", STATUS),
    Forwarded("POST", "/api/unsubscribe/status", "consent", needs(Scope.LEADS_READ)),
    Forwarded("POST", "/api/revoke-consent", "consent", WITHDRAWAL),
    Forwarded("GET", "/unsubscribe", "consent", UNSUBSCRIBE_LINK),
    Forwarded("POST", "/unsubscribe", "consent", UNSUBSCRIBE_LINK),
    Forwarded("GET", "/preferences", "consent", UNSUBSCRIBE_LINK),
    Forwarded("POST", "/preferences", "consent", UNSUBSCRIBE_LINK),
    Forwarded("GET", "/opt-in/confirm", "consent", OPT_IN_LINK),
    Forwarded("POST", "/opt-in/confirm", "consent", OPT_IN_LINK),
    Forwarded("GET", "/erasure/confirm", "consent", ERASURE_LINK),
    Forwarded("POST", "/erasure/confirm", "consent", ERASURE_LINK),
    Forwarded("GET", "/api/consent/audit/verify", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("POST", "/api/consent/audit/verify", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("GET", "/api/consent/audit/checkpoints", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("GET", "/api/consent/audit/{email}", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("GET", "/api/consent/export/{email}", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("GET", "/api/consent/report", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("POST", "/api/consent/report", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("GET", "/api/consent/erasures", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("GET", "/api/consent/erasures/awaiting", "consent", needs(Scope.CONSENT_READ)),
    Forwarded("POST", "/api/consent/erase", "consent", needs(Scope.CONSENT_ACT)),
    Forwarded("POST", "/api/consent/erasures/dismiss", "consent", needs(Scope.CONSENT_ACT)),
    Forwarded("POST", "/api/consent/restrict", "consent", needs(Scope.CONSENT_ACT)),
    Forwarded("POST", "/api/consent/replay-erasures", "consent", needs(Scope.CONSENT_ACT)),
    Forwarded("GET", "/api/alerts", "alerts", needs(Scope.ALERTS_READ)),
    Forwarded("POST", "/api/alerts/replay", "alerts", needs(Scope.DLQ_ACT)),
    Forwarded("GET", "/api/dlq/pending", "alerts", needs(Scope.DLQ_READ)),
    Forwarded("GET", "/api/dlq/failed", "alerts", needs(Scope.DLQ_READ)),
    Forwarded("GET", "/api/dlq/in-doubt", "alerts", needs(Scope.DLQ_READ)),
    Forwarded("GET", "/api/dlq/silenced", "alerts", needs(Scope.DLQ_READ)),
    Forwarded("GET", "/api/dlq/stats", "alerts", needs(Scope.DLQ_READ)),
    Forwarded("POST", "/api/dlq/retry", "alerts", needs(Scope.DLQ_ACT)),
    Forwarded("POST", "/api/dlq/discard", "alerts", needs(Scope.DLQ_ACT)),
    Forwarded("POST", "/api/dlq/resolve", "alerts", needs(Scope.DLQ_ACT)),
    Forwarded("POST", "/api/dlq/cleanup", "alerts", needs(Scope.DLQ_ACT)),
    Forwarded("GET", "/api/cases", "alerts", needs(Scope.CASES_READ)),
    Forwarded("GET", "/api/cases/check", "alerts", needs(Scope.LEDGER_READ)),
    Forwarded("GET", "/api/cases/{id:(?!check$)[^{}/]+}", "alerts", needs(Scope.CASES_READ)),
    Forwarded("POST", "/api/cases/{id}/answer", "alerts", needs(Scope.CASES_ANSWER)),
    Forwarded("POST", "/api/cases/{id}/cancel", "alerts", needs(Scope.ONCALL_WRITE)),
    Forwarded("GET", "/api/breakers", "alerts", needs(Scope.DLQ_READ)),
    Forwarded("POST", "/api/breakers/{target}/reset", "alerts", needs(Scope.BREAKERS_RESET)),
    Forwarded("GET", "/api/ledger/check", "alerts", needs(Scope.LEDGER_READ)),
    Forwarded("GET", "/api/oncall", "alerts", needs(Scope.ONCALL_READ)),
    Forwarded("POST", "/api/oncall/overrides", "alerts", needs(Scope.ONCALL_WRITE)),
    Forwarded("POST", "/api/oncall/swaps", "alerts", needs(Scope.ONCALL_WRITE)),
    Forwarded("DELETE", "/api/oncall/overrides/{id}", "alerts", needs(Scope.ONCALL_WRITE)),
    Forwarded("GET", "/api/silences", "alerts", needs(Scope.ONCALL_READ)),
    Forwarded("POST", "/api/silences", "alerts", needs(Scope.ONCALL_WRITE)),
    Forwarded("POST", "/api/silences/preview", "alerts", needs(Scope.ONCALL_READ)),
    Forwarded(
        "DELETE", "/api/silences/{id:(?!preview$)[^{}/]+}", "alerts", needs(Scope.ONCALL_WRITE)
    ),
    Forwarded("GET", "/api/heartbeats", "alerts", needs(Scope.HEARTBEATS_READ)),
    Forwarded("POST", "/api/heartbeats", "alerts", needs(Scope.HEARTBEATS_WRITE)),
    Forwarded("GET", "/api/heartbeats/{id}", "alerts", needs(Scope.HEARTBEATS_READ)),
    Forwarded("PATCH", "/api/heartbeats/{id}", "alerts", needs(Scope.HEARTBEATS_WRITE)),
    Forwarded("DELETE", "/api/heartbeats/{id}", "alerts", needs(Scope.HEARTBEATS_WRITE)),
    Forwarded("POST", "/api/heartbeats/{id}/rotate", "alerts", needs(Scope.HEARTBEATS_WRITE)),
    Forwarded("POST", "/api/migration/create-dead-letter-queue", "alerts", needs(Scope.DLQ_ACT)),
    Forwarded("GET", "/api/migration/dlq-status", "alerts", needs(Scope.DLQ_READ)),
    Forwarded("GET", "/api/keys", "console", needs(Scope.KEYS_MANAGE)),
    Forwarded("POST", "/api/keys", "console", needs(Scope.KEYS_MANAGE)),
    Forwarded("POST", "/api/keys/accept-restore", "console", needs(Scope.KEYS_MANAGE)),
    Forwarded("POST", "/api/keys/{id}/rotate", "console", needs(Scope.KEYS_MANAGE)),
    Forwarded("POST", "/api/keys/{id}/revoke", "console", needs(Scope.KEYS_MANAGE)),
    Forwarded("GET", "/api/staff", "console", needs(Scope.STAFF_MANAGE)),
    Forwarded("POST", "/api/staff", "console", needs(Scope.STAFF_MANAGE)),
    Forwarded("POST", "/api/staff/{id}/invitation", "console", needs(Scope.STAFF_MANAGE)),
    Forwarded("POST", "/api/staff/{id}/roles", "console", needs(Scope.STAFF_MANAGE)),
    Forwarded("POST", "/api/staff/{id}/reset-factor", "console", needs(Scope.STAFF_MANAGE)),
    Forwarded("POST", "/api/staff/{id}/disable", "console", needs(Scope.STAFF_MANAGE)),
    Forwarded("GET", "/api/actions", "console", needs(Scope.ACTIONS_READ)),
)


class LimitChanges(Model):
    """Limits to set; null removes an override."""

    chat: Limit | None = None
    hour: Limit | None = None
    minute: Limit | None = None
    chat_budget: Limit | None = None
    write_budget: Limit | None = None
    withdrawal_budget: Limit | None = None


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
        def add(method: str, path: str, requires: Requirements, handler: Handler) -> None:
            for each in (method, hdrs.METH_HEAD) if method == hdrs.METH_GET else (method,):
                route = app.router.add_route(each, path, handler, expect_handler=_expect_later)
                access.guard(route, requires)

        if self.forms.contact is not None:
            app[CONTACT] = self.forms.contact
        for known in app.router.routes():
            if known.resource is not None and known.resource.canonical == HEALTH_PATH:
                access.guard(known, UNLIMITED)
        add("GET", "/api/health", UNLIMITED, self.alive)
        add("GET", "/api/ready", UNLIMITED, self.ready)
        add("GET", "/api/health/deep", HEALTH, self.deep)
        add("POST", "/api/alerts", needs(Scope.ALERTS_WRITE), self.post_alert)
        add("POST", "/api/alerts/batch", needs(Scope.ALERTS_WRITE), self.post_batch)
        sender = "|".join(senders.SENDERS)
        add("POST", f"/api/alerts/from/{{sender:{sender}}}", CARRIED, self.post_from)
        # Not `batch`, or its 405 would offer GET.
        one = "/api/alerts/{id:(?!(?:batch|replay)$)[^{}/]+}"
        add("GET", one, needs(Scope.ALERTS_READ), self.get_alert)
        add("GET", "/api/ratelimits", needs(Scope.LIMITS_READ), self.get_limits)
        add("PUT", "/api/ratelimits", needs(Scope.LIMITS_WRITE), self.put_limits)
        add("POST", "/api/cache/cleanup", needs(Scope.LIMITS_WRITE), self.clean_cache)
        add("POST", "/api/slack/actions", SLACK, self.slack_action)
        for method in (hdrs.METH_GET, hdrs.METH_POST):
            add(method, "/ping/{token}", PINGED, self.pings.take)
            signal = "/ping/{token}/{signal:start|fail|[0-9]{1,10}}"
            add(method, signal, PINGED, self.pings.take)
        add("GET", "/transcript", PUBLIC, self.moved)
        # Counting would cost more, and an office with one address would lose its form.
        add("GET", "/api/forms/{form}", UNLIMITED, self.forms.describe)
        add("POST", "/api/leads", FORM, self.forms.post)
        add("GET", "/forms/{form}", PUBLIC, self.forms.page)
        add("GET", "/privacy", PUBLIC, self.forms.privacy)
        for each in FORWARDED:
            if each.upstream in self.upstreams:  # there may be no console
                add(each.method, each.path, each.requires, self._forwarding(each))

    def _forwarding(self, route: Forwarded) -> Handler:
        upstream = self.upstreams[route.upstream]

        async def plain(request: web.Request) -> web.StreamResponse:
            return await self._forward(request, upstream, await self.body_budget.read(request))

        async def once(request: web.Request) -> web.StreamResponse:
            body = await self.body_budget.read(request)
            key = key_of(request)
            sent = body
            if route.requires is CHAT and media_type(request.headers) == JSON:
                sent = issued(body)
            if key is None:
                return await self._forward(request, upstream, sent)
            client = request[CONTEXT].client
            holder = client.holder if client.role is not Role.PUBLIC else holder_of(body, key)
            if holder is None:
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
        if (budget := context.requires.budget) is None:
            return await forward(request, upstream, headers, body or None)
        (window,) = self.overrides.policies[budget]
        charge = await self.budgets.charge(context.client, budget, window)
        if charge is not None and not charge.admitted:
            if budget != WITHDRAWALS:
                context.decision = charge
                raise too_many(request)
            headers[OVER_BUDGET] = "1"  # it is not refused, but no link is mailed for it
        try:
            response = await forward(request, upstream, headers, body or None)
        except Problem as problem:
            await self.budgets.settle(charge, problem.status)
            raise
        await self.budgets.settle(charge, response.status)
        return response

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
