"""The dead-letter queue: list, retry, replay, discard, resolve and clean up deliveries."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from time import monotonic
from typing import Annotated, Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import BeforeValidator, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.http import application
from libs.common.plain import plain
from libs.common.process.logs import log
from libs.domain import acts_outbox
from libs.domain.acts import Act, chosen, refs
from libs.domain.acts_outbox import Counted, record
from services.alerts.delivery import ending
from services.alerts.http.common import admin, operator, service, shown
from services.alerts.intake import Intake
from services.alerts.messages import CASE_EVENTS, CASE_STEP, STAFF_MAIL, shown_payload
from services.alerts.rules.delivery import Reason, State
from services.alerts.store.cases import cases
from services.alerts.store.ledger import queries, transitions, upkeep
from services.alerts.store.ledger.queries import Cursor, Filter
from services.alerts.upkeep import retention

PAGE = 100
MAX_PAGE = 1_000
PAGE_BYTES = 8 * 1024 * 1024  # of payloads; a page ends early beyond it
BATCH = 200
MOST_REPLAYED = 10_000
# The gateway waits 20 s for a response. The call answers before that, and the next one continues.
BULK_SECONDS = 12.0
RETRIED_PER_SECOND = 2_000


def _key(row: Any) -> Cursor:
    return row.created_at, row.alert_id, row.target


def cursor_of(at: datetime, alert_id: UUID, target: str = "") -> str:
    text = json.dumps([at, alert_id, target], default=plain)
    return base64.urlsafe_b64encode(text.encode()).decode()


def cursor_in(text: str) -> Cursor:
    """:raises ValueError:"""
    try:
        at, alert_id, target = json.loads(base64.urlsafe_b64decode(text))
        after = application.in_utc(datetime.fromisoformat(at)), UUID(alert_id), str(target)
    except (ValueError, TypeError, AttributeError):
        after = None
    if after is None or "\0" in after[2]:
        raise ValueError("not a cursor of this list")
    return after


Text = Annotated[str, Field(min_length=1, max_length=2_000)]
After = Annotated[Cursor, BeforeValidator(cursor_in)]


class Query(application.Model):
    """Of a list: which rows, after which one, and how many."""

    id: UUID | None = None
    target: str | None = None
    event_type: str | None = None
    since: application.Time | None = None
    until: application.Time | None = None
    limit: Annotated[int, Field(strict=False, ge=1, le=MAX_PAGE)] = PAGE
    cursor: After | None = None

    def filter(self) -> Filter:
        ids = None if self.id is None else [self.id]
        return Filter(ids, self.target, self.event_type, self.since, self.until)


class Listed(Query):
    state: Literal["pending", "failed", "in_doubt", "silenced"]


class Chosen(application.Model):
    ids: Annotated[list[UUID], Field(min_length=1, max_length=1_000)] | None = None
    target: Text | None = None
    event_type: Text | None = None
    status: Literal["pending", "failed"] | None = None
    since: application.Moment | None = None
    until: application.Moment | None = None
    as_of: application.Moment | None = None

    @model_validator(mode="after")
    def _chooses(self) -> "Chosen":
        if not self.model_fields_set - {"reason"}:
            names = "ids, target, event_type, status, since, until, as_of"
            raise ValueError(f"name at least one of {names}")
        return self

    def filter(self) -> Filter:
        return Filter(self.ids, self.target, self.event_type, self.since, self.until, self.as_of)

    def parts(self) -> list[Filter]:
        """Split ids, so that waiting for one row's lock never keeps another one locked."""
        whole = self.filter()
        return [whole] if self.ids is None else [replace(whole, ids=[each]) for each in self.ids]

    @property
    def ref(self) -> str:
        filters = self.model_dump(mode="json", exclude={"ids", "reason"}, exclude_none=True)
        return f"{refs(self.ids or ())} {chosen(**filters)}".strip()

    def lists(self) -> tuple[str, ...]:
        if self.status is not None:
            return (self.status,)
        return ("failed", "pending") if self.ids is None else ("either",)  # one query per id


class Discard(Chosen):
    reason: Text = "discarded by an operator"


class Resolve(application.Model):
    id: UUID
    outcome: Literal["delivered", "resend", "discarded"]
    reason: Text
    target: Text | None = None


class Replay(application.Model):
    target: Text
    since: application.Moment
    until: application.Moment
    event_type: Text | None = None
    dry_run: bool = False


class Cleanup(application.Model):
    older_than_hours: Annotated[float, Field(ge=0, le=87_600)]


@dataclass(frozen=True, eq=False)
class DlqRoutes:
    engine: AsyncEngine
    intake: Intake
    targets: Container[str]

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/alerts", service(self.alerts))
        for name in ("pending", "failed", "in_doubt", "silenced"):
            path = f"/api/dlq/{name.replace('_', '-')}"
            app.router.add_get(path, admin(partial(self.rows, name)))
        app.router.add_get("/api/dlq/stats", admin(self.stats))
        app.router.add_post("/api/alerts/replay", admin(self.replay))
        app.router.add_post("/api/dlq/retry", admin(self.retry))
        app.router.add_post("/api/dlq/discard", admin(self.discard))
        app.router.add_post("/api/dlq/resolve", admin(self.resolve))
        app.router.add_post("/api/dlq/cleanup", admin(self.cleanup))

    async def rows(self, name: str, request: web.Request) -> web.Response:
        query = application.parse_query(request, Query)
        chosen, after = query.filter(), query.cursor
        rows: list[Any] = []
        size, more = 0, True
        async with self.engine.begin() as tx:
            while more and len(rows) < query.limit and size < PAGE_BYTES:
                most = min(PAGE, query.limit - len(rows))
                some = await queries.paged(tx, name, chosen, after, most + 1)
                more = len(some) > most
                rows += some[:most]
                size += sum(row.size or 0 for row in some)
                after = _key(rows[-1]) if rows else None
            seen = {row.alert_id for row in rows}
            filters = {"state": name} | asdict(chosen)
            await acts_outbox.look(tx, request.headers, "alert.look", "alert", seen, **filters)
        items = [shown(row) | {"payload": shown_payload(row)} for row in rows]
        cursor = cursor_of(*_key(rows[-1])) if more else None
        return application.json_response({"items": items, "next_cursor": cursor})

    async def alerts(self, request: web.Request) -> web.Response:
        """List deliveries; `total`, on the first page, counts them all.

        Without payloads and errors, which may quote them: the list has those of every program.
        """
        query = application.parse_query(request, Listed)
        chosen, state, most = query.filter(), query.state, query.limit
        async with self.engine.connect() as tx:
            rows = await queries.paged(tx, state, chosen, query.cursor, most + 1, bare=True)
            total = None if query.cursor else (await queries.count(tx, chosen, (state,)))[0]
        found = application.page(rows, most, lambda row: cursor_of(*_key(row)), shown)
        for each in found["items"]:
            del each["error_message"]
        return application.json_response(found | {"total": total})

    async def stats(self, _: web.Request) -> web.Response:
        async with self.engine.connect() as tx:
            targets = await queries.stats(tx)
        names = ("pending", "failed", "delivered", "discarded", "in_doubt", "duplicates")
        oldest = [each["oldest_pending_seconds"] or 0.0 for each in targets.values()]
        return application.json_response(
            {
                **{name: sum(each[name] for each in targets.values()) for name in names},
                "oldest_pending_seconds": max(oldest, default=0.0),
                "targets": targets,
            }
        )

    async def retry(self, request: web.Request) -> web.Response:
        """Requeue the chosen rows; the same call again continues where this one stopped."""
        body = await application.parse(request, Chosen)
        changes = {**upkeep.RESET, "operator": operator(request)}
        async with self.engine.connect() as tx:
            lists = () if body.status is None and body.ids is not None else body.lists()
            matched, empty = await queries.count(tx, body.filter(), lists)
        steps_of_cases: list[Any] = []

        async def requeue(tx: AsyncConnection, rows: list[Any]) -> None:
            steps_of_cases.extend(row for row in rows if row.event_type in CASE_EVENTS)
            rows = [row for row in rows if row.event_type not in CASE_EVENTS]
            known = [row for row in rows if row.target in self.targets]
            await upkeep.requeue(tx, known, later=act.total / RETRIED_PER_SECOND, **changes)
            done = len(known)
            for row in rows:
                if row.target not in self.targets:
                    done += await self.intake.reroute(tx, row, operator(request))
            await act.add(tx, done)

        async with self._counted(request, "alert.retry", body.ref) as act:
            complete = await self._for_each_batch(body, requeue, retriable=True)
            done = [await self._retry_step(row, changes, act) for row in steps_of_cases]
        log.info("dlq.retried", operator=operator(request), matched=matched, requeued=act.total)
        answer = {"matched": matched, "requeued": act.total}
        answer["skipped"] = max(0, matched - act.total)
        if empty:  # erased or expired: there is nothing to send
            answer["without_payload"] = empty
        if over := done.count(False):
            # Steps whose case was answered, or whose chain restarted; and updates of places.
            answer["case_over"] = over
        return application.json_response(answer if complete else {**answer, "more": True})

    async def _retry_step(self, row: Any, changes: Mapping[str, Any], act: Counted) -> bool:
        """Requeue a step of a case that still asks; the case is locked first."""
        async with self.engine.begin() as tx:
            if row.event_type != CASE_STEP or not await cases.may_be_pending(tx, row.alert_id):
                return False  # a place that is not up to date gets a new update
            chosen = Filter(ids=[row.alert_id], target=row.target)
            rows = await queries.locked(tx, "either", chosen, None, 1, retriable=True, wait=True)
            free = [each for each in rows if each.state in {State.PENDING, State.FAILED}]
            await upkeep.requeue(tx, free, **changes)
            await act.add(tx, len(free))
        return bool(free)

    @asynccontextmanager
    async def _counted(
        self, request: web.Request, action: str, ref: str, **more: Any
    ) -> AsyncIterator[Counted]:
        act = Counted(Act.of(request.headers, action, "alert", ref, **more))
        yield act
        async with self.engine.begin() as tx:
            await act.end(tx)

    async def discard(self, request: web.Request) -> web.Response:
        body = await application.parse(request, Discard)

        async def end(tx: AsyncConnection, rows: list[Any]) -> None:
            await _end(tx, rows, State.DISCARDED, body.reason, operator(request))
            await act.add(tx, len(rows))

        async with self._counted(request, "alert.discard", body.ref, reason=body.reason) as act:
            complete = await self._for_each_batch(body, end)
        log.info("dlq.discarded", operator=operator(request), rows=act.total)
        return application.json_response(
            {"discarded": act.total, **({} if complete else {"more": True})}
        )

    async def replay(self, request: web.Request) -> web.Response:
        """Send again what a target has accepted, for a receiver that lost it.

        What was sent again is delivered after `until`, so no call chooses it twice: the same call
        again continues.
        """
        body = await application.parse(request, Replay)
        errors = []
        if body.target not in self.targets:
            errors.append(("target", "no target has this name"))
        if not body.since < body.until <= datetime.now(UTC):
            errors.append(("until", "must be after since, and not in the future"))
        if errors:
            raise application.Problem(422, errors=errors)
        which = body.model_dump(exclude={"dry_run"}) | {"never": [*CASE_EVENTS, STAFF_MAIL]}
        counted = await upkeep.run.alone(
            self.engine, "count_replayable", **which, limit=MOST_REPLAYED + 1
        )
        matched = counted.scalar_one()
        if matched > MOST_REPLAYED:
            text = f"more than {MOST_REPLAYED:,} match: choose less time"
            raise application.Problem(422, errors=[("since", text)])
        if body.dry_run:
            return application.json_response({"matched": matched, "requeued": 0})
        ref = chosen(**body.model_dump(mode="json", exclude={"dry_run"}))
        changes = {**upkeep.RESET, "keep_error": False, "operator": operator(request)}
        more, stop = True, monotonic() + BULK_SECONDS
        async with self._counted(request, "alert.replay", ref) as act:
            while more and monotonic() < stop:
                async with self.engine.begin() as tx:
                    rows = await upkeep.run(tx, "replayable", **which, limit=BATCH)
                    later = act.total / RETRIED_PER_SECOND
                    await upkeep.requeue(tx, rows, later=later, **changes)
                    await act.add(tx, len(rows))
                more = len(rows) == BATCH
        log.info("alerts.replayed", operator=operator(request), rows=act.total, more=more)
        answer = {"matched": matched, "requeued": act.total}
        return application.json_response(answer | {"more": True} if more else answer)

    async def _for_each_batch(
        self,
        body: Chosen,
        act: Callable[[AsyncConnection, list[Any]], Awaitable[None]],
        *,
        retriable: bool = False,
    ) -> bool:
        """Act on the chosen rows that no worker has claimed: one transaction per batch.

        :returns: False when the time was up first; the next call continues with the rest
        """
        stop = monotonic() + BULK_SECONDS
        for name, part in product(body.lists(), body.parts()):
            after: Cursor | None = None
            while True:
                if monotonic() > stop:
                    return False
                async with self.engine.begin() as tx:
                    rows = await queries.locked(
                        tx, name, part, after, BATCH, retriable=retriable, wait=part.ids is not None
                    )
                    free = [row for row in rows if row.state in {State.PENDING, State.FAILED}]
                    if free:
                        await act(tx, free)
                if len(rows) < BATCH:
                    break
                after = _key(rows[-1])
        return True

    async def resolve(self, request: web.Request) -> web.Response:
        """Record what an operator found out about a mail in doubt, which ends in no other way."""
        body = await application.parse(request, Resolve)
        async with self.engine.begin() as tx:
            chosen = Filter(ids=[body.id], target=body.target)
            rows = await queries.locked(tx, "in_doubt", chosen, None, BATCH, wait=True)
            if not rows:
                raise application.Problem(404, detail="no delivery of this id is in doubt")
            for ended in map(transitions.ended, rows):
                if ended.once is not None:  # withdrawals no longer wait for it
                    await ending.return_permit(tx, ended.alert_id, ended.attempt, ended.once)
            if body.outcome == "resend":
                if any(row.empty for row in rows):
                    raise application.Problem(409, detail="its payload was erased or has expired")
                if any(row.target not in self.targets for row in rows):
                    raise application.Problem(409, detail="its target is no longer configured")
                said = {"error": body.reason, "keep_error": False, "operator": operator(request)}
                await upkeep.requeue(tx, rows, **upkeep.RESET | said)
            else:
                await _end(tx, rows, State(body.outcome), body.reason, operator(request))
            ref = str(body.id) + (f" {body.target}" if body.target else "")
            why = {"reason": body.reason, "outcome": body.outcome}
            await record(tx, request, "alert.resolve", "alert", ref, len(rows), **why)
        log.info("dlq.resolved", operator=operator(request), id=str(body.id), outcome=body.outcome)
        return application.json_response(
            {"id": str(body.id), "outcome": body.outcome, "resolved": len(rows)}
        )

    async def cleanup(self, request: web.Request) -> web.Response:
        body = await application.parse(request, Cleanup)
        ref = chosen(older_than_hours=body.older_than_hours)
        async with self._counted(request, "alert.cleanup", ref) as act:
            deleted = await retention.purge(self.engine, body.older_than_hours * 3600, act.add)
        log.info("dlq.cleaned_up", operator=operator(request), deleted=deleted)
        return application.json_response({"deleted": deleted})


async def _end(
    tx: AsyncConnection, rows: list[Any], state: State, error: str, by: str | None
) -> None:
    await upkeep.end(tx, rows, state, Reason.MANUAL, error, by)
    for row in rows:
        await ending.notify(tx, transitions.ended(row), state, Reason.MANUAL)
