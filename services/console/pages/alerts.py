"""Alerts that failed, may have arrived, or wait: lists, one alert with its attempts, acts."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from aiohttp import web

from libs.common.http import plain_form
from libs.common.http.application import path_id
from services.console.bulk import COUNTS as VERBS
from services.console.gateway import items
from services.console.messages import RefusedError
from services.console.pages.base import Act, Call, Page
from services.console.pages.page import page, redirect, unavailable
from services.console.rules import ON_CALL, OPS, may
from services.console.store.sessions import Visitor
from services.console.store.sql import run

LISTS = {"failed": "failed", "in_doubt": "in-doubt", "pending": "pending", "silenced": "silenced"}
"""The states that need a person, and the list that has their payloads."""
OUTCOMES = ("delivered", "resend", "discarded")
HOURS = ("1", "24", "168")
PAGE = 50


class AlertsPage(Page):
    path, roles, acting = "/console/alerts", ON_CALL, OPS

    def acts(self) -> Mapping[str, Act]:
        return {"": self._begin}

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        is_form = request.method == "POST"
        asked: Mapping[str, Any] = await plain_form.read(request) if is_form else request.query
        state = asked.get("state", "failed")
        if state not in LISTS:
            raise web.HTTPNotFound
        now = datetime.now(UTC)
        hours = asked.get("hours") if asked.get("hours") in HOURS else None
        since = (now - timedelta(hours=int(hours))).isoformat() if hours else None
        chosen = {"target": asked.get("target"), "event_type": asked.get("event_type")}
        chosen = {name: str(text).strip() for name, text in chosen.items() if text}
        listed, counted = await asyncio.gather(
            self.site.gateway.get(
                visitor, "/api/alerts", state=state, since=since, cursor=asked.get("cursor"),
                limit=PAGE, **chosen,
            ),
            self.site.gateway.get(visitor, "/api/dlq/stats"),
        )  # fmt: skip
        async with self.site.engine.connect() as tx:
            running = await run(tx, "running_bulks")
        total = listed.body["total"] if listed.ok else None
        # What is shown is what is acted on: not what fails while somebody reads, however old it is.
        form = chosen | {"state": state, "as_of": now.isoformat(), "expected": str(total)}
        form |= {"since": since, "hours": hours or ""} if since else {}
        return page(
            request, "alerts.html", "alerts", visitor, live="alerts",
            state=state, states=list(LISTS), items=items(listed),
            counts=counted.body if counted.ok else {}, hours=hours, all_hours=HOURS,
            targets=sorted(counted.body["targets"]) if counted.ok else [],
            target=chosen.get("target"), event_type=chosen.get("event_type"),
            cursor=listed.body["next_cursor"] if listed.ok else None, total=total,
            acts=may(visitor.roles, *OPS), verbs=list(VERBS), bulk=form, running=running,
            **{"fault": listed.fault, "status": listed.page_status} | said,
        )  # fmt: skip

    async def _begin(self, call: Call) -> web.Response:
        """Act on all that a list has shown: their number was typed."""
        verb, expected, number = call.text("verb"), call.text("expected"), call.text("number")
        if not verb and not number:  # the button that needs no typing; one of the two only
            verb, number = "retry", call.text("retry")
        if not expected.isdecimal() or number != expected:
            raise RefusedError("bad_number", 422, reason=call.text("reason")[:500])
        if verb not in VERBS:
            raise RefusedError("bad_verb", 422)
        reason = call.reason()
        state = call.chosen("state", ("failed", "pending"))  # what is in doubt: one by one
        if not call.text("as_of"):
            raise web.HTTPBadRequest
        names = ("target", "event_type", "since", "as_of")
        chosen = {name: str(call.form[name]) for name in names if call.form.get(name)}
        chosen["status"] = state
        began = await self.site.bulk.begin(call.visitor, verb, chosen, reason, int(expected))
        return redirect(f"/console/bulk/{began}")


class BulkPage(Page):
    """The progress of a retry or discard of many alerts, and a button to stop it."""

    path, roles, acting = "/console/bulk/{id}", ON_CALL, OPS

    def acts(self) -> Mapping[str, Act]:
        return {"/stop": self._stop}

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        async with self.site.engine.connect() as tx:
            found = (await run(tx, "bulk", id=path_id(request, "bulk"))).one_or_none()
        if found is None:
            raise web.HTTPNotFound
        return page(
            request, "bulk.html", "bulk", visitor, bulk=found, acts=may(visitor.roles, *OPS), **said
        )  # fmt: skip

    async def _stop(self, call: Call) -> None:
        await self.site.bulk.stop(call.visitor, call.id("bulk"))


class AlertPage(Page):
    path, roles, acting = "/console/alerts/{id}", ON_CALL, OPS

    def acts(self) -> Mapping[str, Act]:
        verbs = {f"/{verb}": partial(self._act, verb=verb) for verb in VERBS}
        return {**verbs, "/resolve": self._resolve}

    async def show(self, request: web.Request, visitor: Visitor, **said: Any) -> web.Response:
        alert_id = path_id(request, "alert")
        answer = await self.site.gateway.get(visitor, f"/api/alerts/{alert_id}")
        if not answer.ok:
            return unavailable(request, "alert", visitor, answer, said.get("fault"))
        acts = may(visitor.roles, *OPS)
        payloads = await self._payloads(visitor, str(alert_id), answer.body) if acts else {}
        return page(
            request, "alert.html", "alert", visitor,
            alert=answer.body, acts=acts, payloads=payloads, outcomes=OUTCOMES, **said,
        )  # fmt: skip

    async def _payloads(
        self, visitor: Visitor, alert_id: str, alert: Mapping[str, Any]
    ) -> Mapping[str, str]:
        """Return what was to be sent, by target. Errors and answers may quote it: one record."""
        await self.site.looks.record(visitor, "alert.look", "alert", [alert_id])
        lists = {LISTS[each["status"]] for each in alert["deliveries"] if each["status"] in LISTS}
        found = await asyncio.gather(
            *(self.site.gateway.get(visitor, f"/api/dlq/{name}", id=alert_id) for name in lists)
        )
        return {
            row["target"]: json.dumps(row["payload"], ensure_ascii=False, indent=2)
            for answer in found
            for row in items(answer)
            if row["payload"] is not None
        }

    async def _act(self, call: Call, verb: str) -> None:
        body: dict[str, Any] = {"reason": call.reason()} if verb == "discard" else {}
        body |= {"ids": [str(call.id("alert"))], "target": _target(call)}
        answer = await call.ask("POST", f"/api/dlq/{verb}", body)
        if not answer.body[VERBS[verb]]:
            raise RefusedError("nothing_to_do", 409)

    async def _resolve(self, call: Call) -> None:
        body = {"id": str(call.id("alert")), "target": _target(call), "reason": call.reason()}
        if (outcome := call.text("outcome")) not in OUTCOMES:
            raise RefusedError("bad_outcome", 422)
        await call.ask("POST", "/api/dlq/resolve", body | {"outcome": outcome})


def _target(call: Call) -> str:
    """Return the form's only target: without one, the call would act on all targets."""
    if not (target := str(call.form.get("target", ""))):
        raise web.HTTPBadRequest
    return target
