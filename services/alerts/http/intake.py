"""Routes for other services: accept alerts while the broker is unavailable, and show one alert."""

from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import MAX_DEPTH, Problem, json_response, parse, path_id
from libs.common.process import logs
from libs.domain import acts_outbox
from services.alerts.http.common import service, shown
from services.alerts.intake import Intake
from services.alerts.messages import AlertAccepted, columns
from services.alerts.rules.delivery import Reason, State
from services.alerts.store.ledger import queries

# Worst first.
_ENDS = (State.FAILED, State.IN_DOUBT, State.DISCARDED, State.DELIVERED)


class Accept(BaseModel):
    """From the gateway, which may add fields that are new here."""

    model_config = ConfigDict(extra="ignore")
    alerts: list[AlertAccepted] = Field(min_length=1, max_length=1_000)


@dataclass(frozen=True, eq=False)
class IntakeRoutes:
    engine: AsyncEngine
    intake: Intake

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/internal/alerts", service(self.accept))
        app.router.add_get("/api/alerts/{id}", service(self.alert))

    async def accept(self, request: web.Request) -> web.Response:
        """Write alerts into the ledger under the ids that they would have in the broker."""
        # The gateway checked each payload two levels less deep.
        body = await parse(request, Accept, max_depth=MAX_DEPTH + 2)
        async with self.engine.begin() as tx:
            await self.intake.accept(tx, body.alerts, logs.request_id.get())
        return json_response({"accepted": len(body.alerts)}, status=202)

    async def alert(self, request: web.Request) -> web.Response:
        alert_id = path_id(request, "alert")
        async with self.engine.begin() as tx:
            rows = await queries.run(tx, "find", alert_id=alert_id)
            # What a target said may quote the alert. Callers who wait for it see none of that.
            if any(row.error or any(each["excerpt"] for each in row.history) for row in rows):
                await acts_outbox.look(tx, request.headers, "alert.look", "alert", [alert_id])
        if not rows:
            # An alert that was just accepted may not be in the ledger yet.
            raise Problem(404, detail="no such alert", headers={"Retry-After": "1"})
        first = rows[0]
        return json_response(
            {
                "id": alert_id,
                **columns(first, "event_type", "severity"),
                "state": _overall(rows),
                "attempts": sum(row.attempt for row in rows),
                "accepted_at": first.asked_at,
                "request_id": first.asked_by,
                "deliveries": [
                    shown(row) | columns(row, "duplicate_of", "history") for row in rows
                ],
            }
        )


def _overall(rows: list[Any]) -> str:
    """Return one state for all deliveries of an alert: pending while any is open, else the worst.

    A row that moved to another target does not count; its new row does.
    """
    moved = {Reason.FALLBACK, Reason.REROUTED}
    states = [State(row.state) for row in rows if row.reason not in moved]
    if any(state not in _ENDS for state in states):
        return State.PENDING
    return next((state for state in _ENDS if state in states), State.DISCARDED)
