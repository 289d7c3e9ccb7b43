"""Alerts that failed, may have arrived, or wait: lists, one alert with its tries, what to do."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http import plain_form
from libs.common.http.application import path_id
from services.console.api.keys import reason_in
from services.console.bulk import COUNTS as VERBS
from services.console.bulk import Bulk
from services.console.gateway import Answer, Gateway, items
from services.console.pages.door import Door
from services.console.pages.page import answered, page, redirect, unavailable
from services.console.record import Looks
from services.console.rules import Role, may
from services.console.store import bulk
from services.console.store.sessions import Visitor

PATH = "/console/alerts"
LISTS = {"failed": "failed", "in_doubt": "in-doubt", "pending": "pending"}
"""The states that need a person, and the list that has their payloads."""
OUTCOMES = ("delivered", "resend", "discarded")
HOURS = ("1", "24", "168")
PAGE = 50


class DeliveryRoutes:
    def __init__(
        self, engine: AsyncEngine, door: Door, gateway: Gateway, looks: Looks, work: Bulk
    ) -> None:
        self._engine = engine
        self._door = door
        self._gateway = gateway
        self._looks = looks
        self._bulk = work

    def add_to(self, app: web.Application) -> None:
        one = PATH + "/{id}"
        self._door.add(app, "GET", PATH, self.list, Role.VIEWER, Role.OPS)
        self._door.add(app, "POST", PATH, self.begin, Role.OPS)
        self._door.add(app, "GET", one, self.alert, Role.VIEWER, Role.OPS)
        self._door.add(app, "POST", f"{one}/retry", self.retry, Role.OPS)
        self._door.add(app, "POST", f"{one}/discard", self.discard, Role.OPS)
        self._door.add(app, "POST", f"{one}/resolve", self.resolve, Role.OPS)

    async def list(self, request: web.Request, visitor: Visitor) -> web.Response:
        return await self._list(request, visitor, request.query)

    async def _list(
        self, request: web.Request, visitor: Visitor, asked: Mapping[str, Any], *,
        fault: str | None = None,
    ) -> web.Response:  # fmt: skip
        state = asked.get("state", "failed")
        if state not in LISTS:
            raise web.HTTPNotFound
        now = datetime.now(UTC)
        hours = asked.get("hours") if asked.get("hours") in HOURS else None
        since = (now - timedelta(hours=int(hours))).isoformat() if hours else None
        chosen = {"target": asked.get("target"), "event_type": asked.get("event_type")}
        chosen = {name: str(text).strip() for name, text in chosen.items() if text}
        cursor = asked.get("cursor")
        listed, counted = await asyncio.gather(
            self._gateway.get(
                visitor, "/api/alerts", state=state, since=since, cursor=cursor, limit=PAGE,
                **chosen,
            ),
            self._gateway.get(visitor, "/api/dlq/stats"),
        )  # fmt: skip
        async with self._engine.connect() as tx:
            running = await bulk.running(tx)
        total = listed.body["total"] if listed.ok else None
        # What is shown is what is acted on: not what fails while somebody reads, however old it is.
        form = chosen | {"state": state, "as_of": now.isoformat(), "expected": str(total)}
        form |= {"since": since, "hours": hours or ""} if since else {}
        return page(
            request, "alerts.html", "alerts", visitor, live="alerts",
            status=422 if fault else listed.page_status, fault=fault or listed.fault,
            state=state, states=list(LISTS), alerts=items(listed),
            counts=counted.body if counted.ok else {}, hours=hours, all_hours=HOURS,
            targets=sorted(counted.body["targets"]) if counted.ok else [],
            target=chosen.get("target"), event_type=chosen.get("event_type"),
            cursor=listed.body["next_cursor"] if listed.ok else None, total=total,
            acts=may(visitor.roles, Role.OPS), verbs=list(VERBS), bulk=form, running=running,
        )  # fmt: skip

    async def begin(self, request: web.Request, visitor: Visitor) -> web.Response:
        """Act on all that a list has shown: their number was typed."""
        form = await plain_form.read(request)
        verb, expected = str(form.get("verb", "")), str(form.get("expected", ""))
        reason = reason_in(form)
        fault = "bad_verb" if verb not in VERBS else "bad_reason" if reason is None else None
        if not expected.isdecimal() or str(form.get("number", "")).strip() != expected:
            fault = "bad_number"
        if fault or reason is None:
            return await self._list(request, visitor, form, fault=fault)
        if (state := form.get("state")) not in {"failed", "pending"} or not form.get("as_of"):
            raise web.HTTPBadRequest  # what is in doubt is decided one by one
        names = ("target", "event_type", "since", "as_of")
        chosen = {name: str(form[name]) for name in names if form.get(name)}
        chosen["status"] = str(state)
        bulk_id = await self._bulk.begin(visitor, verb, chosen, reason, int(expected))
        return redirect(f"/console/bulk/{bulk_id}")

    async def alert(
        self, request: web.Request, visitor: Visitor, *, fault: str | None = None, status: int = 200
    ) -> web.Response:
        alert_id = path_id(request, "alert")
        answer = await self._gateway.get(visitor, f"/api/alerts/{alert_id}")
        if not answer.ok:
            return unavailable(request, "alert", visitor, answer, fault)
        acts = may(visitor.roles, Role.OPS)
        payloads = await self._payloads(visitor, str(alert_id), answer.body) if acts else {}
        return page(
            request, "alert.html", "alert", visitor, status=status, fault=fault,
            alert=answer.body, acts=acts, payloads=payloads, outcomes=OUTCOMES,
        )  # fmt: skip

    async def _payloads(
        self, visitor: Visitor, alert_id: str, alert: Mapping[str, Any]
    ) -> Mapping[str, str]:
        """Return what was to be sent, by target. Errors and answers may quote it: one record."""
        await self._looks.record(visitor, "alert.look", "alert", [alert_id])
        lists = {LISTS[each["status"]] for each in alert["deliveries"] if each["status"] in LISTS}
        found = await asyncio.gather(
            *(self._gateway.get(visitor, f"/api/dlq/{name}", id=alert_id) for name in lists)
        )
        return {
            row["target"]: json.dumps(row["payload"], ensure_ascii=False, indent=2)
            for answer in found
            for row in items(answer)
            if row["payload"] is not None
        }

    async def retry(self, request: web.Request, visitor: Visitor) -> web.Response:
        return await self._act(request, visitor, "retry", "requeued")

    async def discard(self, request: web.Request, visitor: Visitor) -> web.Response:
        reason = reason_in(await plain_form.read(request))
        if reason is None:
            return await self.alert(request, visitor, fault="bad_reason", status=422)
        return await self._act(request, visitor, "discard", "discarded", reason=reason)

    async def _act(
        self, request: web.Request, visitor: Visitor, verb: str, counted: str, **more: str
    ) -> web.Response:
        body = {"ids": [str(path_id(request, "alert"))], "target": await _target(request), **more}
        answer = await self._gateway.post(visitor, f"/api/dlq/{verb}", body)
        if answer.ok and not answer.body[counted]:
            return await self.alert(request, visitor, fault="nothing_to_do", status=409)
        return await self._done(request, visitor, answer)

    async def resolve(self, request: web.Request, visitor: Visitor) -> web.Response:
        form = await plain_form.read(request)
        reason, outcome = reason_in(form), str(form.get("outcome", ""))
        if reason is None or outcome not in OUTCOMES:
            fault = "bad_reason" if reason is None else "bad_outcome"
            return await self.alert(request, visitor, fault=fault, status=422)
        body = {"id": str(path_id(request, "alert")), "target": await _target(request)}
        answer = await self._gateway.post(
            visitor, "/api/dlq/resolve", body | {"outcome": outcome, "reason": reason}
        )
        return await self._done(request, visitor, answer)

    async def _done(self, request: web.Request, visitor: Visitor, answer: Answer) -> web.Response:
        path = f"{PATH}/{path_id(request, 'alert')}"
        return await answered(request, visitor, answer, self.alert, path)


async def _target(request: web.Request) -> str:
    """Return the one target of the form: without one, the call would mean all of them."""
    if not (target := str((await plain_form.read(request)).get("target", ""))):
        raise web.HTTPBadRequest
    return target
