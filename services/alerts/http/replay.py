"""Sends again what a target has accepted, for a receiver that lost it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Annotated

from aiohttp import web
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Model, Moment, Problem, json_response, parse
from libs.common.process import logs
from libs.domain.acts import Act, chosen
from libs.domain.acts_outbox import Counted
from services.alerts.config.targets import Config
from services.alerts.http.common import admin, operator
from services.alerts.http.dlq import BATCH, BULK_SECONDS, RETRIED_PER_SECOND
from services.alerts.store.ledger import upkeep

log = logs.get_logger(__name__)

MOST = 10_000
Text = Annotated[str, Field(min_length=1, max_length=2_000)]


class Replay(Model):
    target: Text
    since: Moment
    until: Moment
    event_type: Text | None = None
    dry_run: bool = False


@dataclass(frozen=True, eq=False)
class ReplayRoutes:
    engine: AsyncEngine
    config: Config

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/alerts/replay", admin(self.replay))

    async def replay(self, request: web.Request) -> web.Response:
        """Requeue rows, each batch in a transaction. The same call again continues.

        What was sent again is delivered after `until`, so no call chooses it twice.
        """
        body = await parse(request, Replay)
        errors = []
        if body.target not in self.config.targets:
            errors.append(("target", "no target has this name"))
        if not body.since < body.until <= datetime.now(UTC):
            errors.append(("until", "must be after since, and not in the future"))
        if errors:
            raise Problem(422, errors=errors)
        which = body.model_dump(exclude={"dry_run"})
        async with self.engine.connect() as tx:
            matched = await upkeep.replayable(tx, **which, limit=MOST + 1)
        if matched > MOST:
            raise Problem(422, errors=[("since", f"more than {MOST:,} match: choose less time")])
        if body.dry_run:
            return json_response({"matched": matched, "requeued": 0})
        ref = chosen(**body.model_dump(mode="json", exclude={"dry_run"}))
        act = Counted(Act.of(request.headers, "alert.replay", "alert", ref))
        requeued, more, stop = 0, True, monotonic() + BULK_SECONDS
        while more and monotonic() < stop:
            async with self.engine.begin() as tx:
                rows = await upkeep.to_replay(tx, **which, limit=BATCH)
                changes = {**upkeep.RESET, "error": None, "operator": operator(request)}
                await upkeep.requeue(tx, rows, later=requeued / RETRIED_PER_SECOND, **changes)
                await act.add(tx, len(rows))
            requeued, more = requeued + len(rows), len(rows) == BATCH
        async with self.engine.begin() as tx:
            await act.end(tx)
        log.info("alerts.replayed", operator=operator(request), rows=requeued, more=more)
        answer = {"matched": matched, "requeued": requeued}
        return json_response(answer | {"more": True} if more else answer)
