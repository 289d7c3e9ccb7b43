"""Reports calls with keys that only an admin's opens to consent, before and after they run.

Reports go through the broker, confirmed; otherwise over HTTP. If neither works the call still runs,
so that no one is locked out in an emergency (docs/decisions/0008).
"""

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from libs.common.http.application import CALLER, REQUEST_ID, Problem, route_template
from libs.common.messaging.broker import Broker, Message, PublishError
from libs.common.process import logs
from services.gateway import metrics
from services.gateway.body_budget import BodyBudget
from services.gateway.clients import Client, Role
from services.gateway.proxy import operator_of
from services.gateway.upstream import Upstream

log = logs.get_logger(__name__)

EXCHANGE = ROUTING_KEY = "consent.actions"
INTERNAL_PATH = "/internal/actions"
RECORD_SECONDS = 2.0
# Recorded fields; a reason, or any other text, may contain personal data.
DETAILS = (
    *("id", "ids", "target", "status", "since", "until", "as_of", "older_than_hours", "outcome"),
    *("event_type", "schedule", "person", "ends"),
    *("chat", "hour", "minute", "cursor", "state", "answer"),
)
MOST_LETTERS = MOST_ITEMS = 100
WITHHELD = "(withheld)"


class AdminRecord:
    def __init__(self, broker: Broker, consent: Upstream, body_budget: BodyBudget) -> None:
        self._broker = broker
        self._consent = consent
        self._body_budget = body_budget

    async def recorded(
        self,
        request: web.Request,
        client: Client,
        call: Handler,
    ) -> web.StreamResponse:
        """Run the call; record `intended` before it and `done` after it."""
        said = _said(request, await self._body_budget.peek(request))
        operator = operator_of(request, client)
        action = {
            "id": str(uuid.uuid4()),
            "key_id": client.key_id,
            "operator": operator and operator[:200],
            "method": request.method,
            "route": route_template(request),
            "details": {name: _shown(said[name]) for name in DETAILS if name in said},
            "subject": subject if isinstance(subject := said.get("email"), str) else None,
            "client_address": client.ip,
            "request_id": logs.request_id.get() or "",
        }
        await self._record(action, "intended", None)
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            response = await call(request)
            status = response.status
        except (Problem, web.HTTPException) as error:
            status = error.status
            raise
        finally:
            await self._record(action, "done", status)
        return response

    async def _record(self, action: Mapping[str, Any], phase: str, status: int | None) -> None:
        body = {**action, "phase": phase, "status": status, "at": datetime.now(UTC).isoformat()}
        request_id = action["request_id"]
        message = Message(str(uuid.uuid4()), "call.record", body, request_id)
        try:
            await self._broker.publish(EXCHANGE, ROUTING_KEY, message, timeout=RECORD_SECONDS)
        except PublishError:  # rejected or unconfirmed: a duplicate report makes one row
            try:
                await self._post(body, request_id)
            except Problem as problem:
                metrics.ADMIN_CALLS_UNRECORDED.labels(phase).inc()
                kept = {name: body[name] for name in ("id", "key_id", "method", "route", "status")}
                log.error("admin_call.unrecorded", phase=phase, fault=problem.detail, **kept)  # noqa: TRY400

    async def _post(self, body: Mapping[str, Any], request_id: str) -> None:
        headers = {
            hdrs.CONTENT_TYPE: "application/json",
            REQUEST_ID: request_id,
            CALLER: Role.ADMIN,
        }
        async with self._consent.ask(
            hdrs.METH_POST,
            INTERNAL_PATH,
            headers=headers,
            body=json.dumps(body).encode(),
            timeout=RECORD_SECONDS,
        ) as answer:
            if answer.status != HTTPStatus.CREATED:
                raise Problem(answer.status, detail=f"consent responded {answer.status}")


def _said(request: web.Request, body: bytes) -> dict[str, Any]:
    """Return the parameters of path, query and body; the body is not validated yet."""
    try:
        given = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        given = {}
    return {
        **(given if isinstance(given, dict) else {}),
        **request.query,
        **request.match_info,
    }


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(each) for each in value[:MOST_ITEMS] if not isinstance(each, list)]
    if isinstance(value, str):
        fits = len(value) <= MOST_LETTERS and value.isprintable() and "@" not in value
        return value if fits else WITHHELD
    if isinstance(value, bool | None) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    return WITHHELD
