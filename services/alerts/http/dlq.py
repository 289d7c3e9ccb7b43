"""The dead-letter queue: list, retry, discard, resolve and clean up deliveries."""

import base64
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from time import monotonic
from typing import Annotated, Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import Field, model_validator
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.http.application import Model, Moment, Problem, in_utc, json_response, parse
from libs.common.process import logs
from libs.domain import acts_outbox
from libs.domain.acts import Act, chosen, refs
from libs.domain.acts_outbox import Counted
from services.alerts.delivery import ending
from services.alerts.http.common import admin, operator, service, shown
from services.alerts.intake import Intake
from services.alerts.messages import CASE_EVENTS, CASE_STEP, shown_payload
from services.alerts.rules.delivery import Reason, State
from services.alerts.store.cases import cases
from services.alerts.store.ledger import queries, transitions, upkeep
from services.alerts.store.ledger.queries import Cursor, Filter
from services.alerts.targets.throttle import Throttle
from services.alerts.upkeep import retention

log = logs.get_logger(__name__)

PAGE = 100
MAX_PAGE = 1_000
PAGE_BYTES = 8 * 1024 * 1024  # of payloads; a page ends early beyond it
BATCH = 200
LISTS = ("pending", "failed", "in_doubt", "silenced")
# The gateway waits 20 s for a response. The call answers before that, and the next one continues.
BULK_SECONDS = 12.0
RETRIED_PER_SECOND = 2_000


Text = Annotated[str, Field(min_length=1, max_length=2_000)]


class Chosen(Model):
    ids: Annotated[list[UUID], Field(min_length=1, max_length=1_000)] | None = None
    target: Text | None = None
    event_type: Text | None = None
    status: Literal["pending", "failed"] | None = None
    since: Moment | None = None
    until: Moment | None = None
    as_of: Moment | None = None

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

    def act(self, request: web.Request, action: str, reason: str | None = None) -> Counted:
        filters = self.model_dump(mode="json", exclude={"ids", "reason"}, exclude_none=True)
        ref = f"{refs(self.ids or ())} {chosen(**filters)}".strip()
        return Counted(Act.of(request.headers, action, "alert", ref, reason=reason))

    def lists(self) -> tuple[str, ...]:
        if self.status is not None:
            return (self.status,)
        return ("failed", "pending") if self.ids is None else ("either",)  # one query per id


class Discard(Chosen):
    reason: Text = "discarded by an operator"


class Resolve(Model):
    id: UUID
    outcome: Literal["delivered", "resend", "discarded"]
    reason: Text
    target: Text | None = None


class Cleanup(Model):
    older_than_hours: Annotated[float, Field(ge=0, le=87_600)]


@dataclass(frozen=True, eq=False)
class DlqRoutes:
    engine: AsyncEngine
    intake: Intake
    throttles: Mapping[str, Throttle]

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/alerts", service(self.alerts))
        app.router.add_get("/api/dlq/pending", admin(partial(self.rows, "pending")))
        app.router.add_get("/api/dlq/failed", admin(partial(self.rows, "failed")))
        app.router.add_get("/api/dlq/in-doubt", admin(partial(self.rows, "in_doubt")))
        app.router.add_get("/api/dlq/silenced", admin(partial(self.rows, "silenced")))
        app.router.add_get("/api/dlq/stats", admin(self.stats))
        app.router.add_post("/api/dlq/retry", admin(self.retry))
        app.router.add_post("/api/dlq/discard", admin(self.discard))
        app.router.add_post("/api/dlq/resolve", admin(self.resolve))
        app.router.add_post("/api/dlq/cleanup", admin(self.cleanup))

    async def rows(self, name: str, request: web.Request) -> web.Response:
        chosen, after, limit = _query(request)
        rows: list[Any] = []
        size, more = 0, True
        async with self.engine.begin() as tx:
            while more and len(rows) < limit and size < PAGE_BYTES:
                asked = min(PAGE, limit - len(rows))
                some = list(await tx.execute(queries.paged(name, chosen, after, asked + 1)))
                more = len(some) > asked
                rows += some[:asked]
                size += sum(row.size or 0 for row in some)
                after = _key(rows[-1]) if rows else None
            seen = {row.alert_id for row in rows}
            filters = {"state": name} | asdict(chosen)
            await acts_outbox.look(tx, request.headers, "alert.look", "alert", seen, **filters)
        return json_response(
            {
                "items": [shown(row) | {"payload": shown_payload(row)} for row in rows],
                "next_cursor": _cursor_of(rows[-1]) if more else None,
            }
        )

    async def alerts(self, request: web.Request) -> web.Response:
        """List deliveries; `total`, on the first page, counts them all.

        Without payloads and errors, which may quote them: the list has those of every program.
        """
        chosen, after, limit = _query(request, {"state"})
        if (state := request.query.get("state")) not in LISTS:
            raise Problem(422, errors=[("state", f"must be one of {', '.join(LISTS)}")])
        async with self.engine.connect() as tx:
            listed = queries.paged(state, chosen, after, limit + 1, bare=True)
            rows = list(await tx.execute(listed))
            total = None if after else (await queries.count(tx, chosen, (state,)))[0]
        more, rows = len(rows) > limit, rows[:limit]
        items = [shown(row) for row in rows]
        for each in items:
            del each["error_message"]
        return json_response(
            {
                "items": items,
                "next_cursor": _cursor_of(rows[-1]) if more else None,
                "total": total,
            }
        )

    async def stats(self, _: web.Request) -> web.Response:
        async with self.engine.connect() as tx:
            targets = await queries.stats(tx)
        names = ("pending", "failed", "delivered", "discarded", "in_doubt", "duplicates")
        oldest = [each["oldest_pending_seconds"] or 0.0 for each in targets.values()]
        return json_response(
            {
                **{name: sum(each[name] for each in targets.values()) for name in names},
                "oldest_pending_seconds": max(oldest, default=0.0),
                "targets": targets,
            }
        )

    async def retry(self, request: web.Request) -> web.Response:
        """Requeue the chosen rows; the same call again continues where this one stopped."""
        body = await parse(request, Chosen)
        changes = {**upkeep.RESET, "operator": operator(request)}
        act = body.act(request, "alert.retry")
        async with self.engine.connect() as tx:
            lists = () if body.status is None and body.ids is not None else body.lists()
            matched, empty = await queries.count(tx, body.filter(), lists)
        requeued = 0
        steps_of_cases: list[Any] = []

        async def requeue(tx: AsyncConnection, rows: list[Any]) -> None:
            nonlocal requeued
            steps_of_cases.extend(row for row in rows if row.event_type in CASE_EVENTS)
            rows = [row for row in rows if row.event_type not in CASE_EVENTS]
            known = [row for row in rows if row.target in self.throttles]
            await upkeep.requeue(tx, known, later=requeued / RETRIED_PER_SECOND, **changes)
            done = len(known)
            for row in rows:
                if row.target not in self.throttles:
                    done += await self.intake.reroute(tx, row, operator(request))
            await act.add(tx, done)
            requeued += done

        complete = await self._for_each_batch(body, requeue, retriable=True)
        over = 0
        for row in steps_of_cases:
            done = await self._retry_step(row, changes, act)
            requeued, over = requeued + done, over + (not done)
        await self._end_act(act)
        log.info("dlq.retried", operator=operator(request), matched=matched, requeued=requeued)
        answer = {"matched": matched, "requeued": requeued, "skipped": max(0, matched - requeued)}
        if empty:  # erased or expired: there is nothing to send
            answer["without_payload"] = empty
        if over:  # steps whose case was answered, or whose chain restarted; and updates of places
            answer["case_over"] = over
        return json_response(answer if complete else {**answer, "more": True})

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

    async def _end_act(self, act: Counted) -> None:
        async with self.engine.begin() as tx:
            await act.end(tx)

    async def discard(self, request: web.Request) -> web.Response:
        body = await parse(request, Discard)
        act = body.act(request, "alert.discard", body.reason)
        discarded = 0

        async def end(tx: AsyncConnection, rows: list[Any]) -> None:
            nonlocal discarded
            await _end(tx, rows, State.DISCARDED, body.reason, operator(request))
            await act.add(tx, len(rows))
            discarded += len(rows)

        complete = await self._for_each_batch(body, end)
        await self._end_act(act)
        log.info("dlq.discarded", operator=operator(request), rows=discarded)
        return json_response({"discarded": discarded, **({} if complete else {"more": True})})

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
        body = await parse(request, Resolve)
        async with self.engine.begin() as tx:
            chosen = Filter(ids=[body.id], target=body.target)
            rows = await queries.locked(tx, "in_doubt", chosen, None, BATCH, wait=True)
            if not rows:
                raise Problem(404, detail="no delivery of this id is in doubt")
            for ended in map(transitions.ended, rows):
                if ended.once is not None:  # withdrawals no longer wait for it
                    await ending.return_permit(tx, ended.alert_id, ended.attempt, ended.once)
            if body.outcome == "resend":
                if any(row.empty for row in rows):
                    raise Problem(409, detail="its payload was erased or has expired")
                if any(row.target not in self.throttles for row in rows):
                    raise Problem(409, detail="its target is no longer configured")
                changes = {**upkeep.RESET, "error": body.reason, "operator": operator(request)}
                await upkeep.requeue(tx, rows, **changes)
            else:
                await _end(tx, rows, State(body.outcome), body.reason, operator(request))
            ref = str(body.id) + (f" {body.target}" if body.target else "")
            act = Act.of(
                request.headers, "alert.resolve", "alert", ref,
                reason=body.reason, outcome=body.outcome,
            )  # fmt: skip
            await acts_outbox.record(tx, act, len(rows))
        log.info("dlq.resolved", operator=operator(request), id=str(body.id), outcome=body.outcome)
        return json_response({"id": str(body.id), "outcome": body.outcome, "resolved": len(rows)})

    async def cleanup(self, request: web.Request) -> web.Response:
        body = await parse(request, Cleanup)
        ref = chosen(older_than_hours=body.older_than_hours)
        act = Counted(Act.of(request.headers, "alert.cleanup", "alert", ref))
        deleted = await retention.purge(self.engine, body.older_than_hours * 3600, act.add)
        await self._end_act(act)
        log.info("dlq.cleaned_up", operator=operator(request), deleted=deleted)
        return json_response({"deleted": deleted})


async def _end(
    tx: AsyncConnection, rows: list[Any], state: State, error: str, by: str | None
) -> None:
    await upkeep.end(tx, rows, state, Reason.MANUAL, error, by)
    for row in rows:
        await ending.notify(tx, transitions.ended(row), state, Reason.MANUAL)


def _key(row: Any) -> Cursor:
    return row.created_at, row.alert_id, row.target


def _cursor_of(row: Any) -> str:
    at, alert_id, target = _key(row)
    text = json.dumps([at.isoformat(), str(alert_id), target])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _cursor(text: str) -> Cursor:
    at, alert_id, target = json.loads(base64.urlsafe_b64decode(text))
    after = in_utc(datetime.fromisoformat(at)), UUID(alert_id), str(target)
    if "\0" in after[2]:
        raise ValueError(after)
    return after


def _query(request: web.Request, more: Iterable[str] = ()) -> tuple[Filter, Cursor | None, int]:
    """Read a list's query: which rows, after which one, and how many.

    :param more: parameters that the caller reads
    :raises Problem: 422, each bad parameter
    """
    query = request.query
    faults: list[tuple[str, str]] = [
        (name, "unknown")
        for name in query
        if name not in {"id", "target", "event_type", "since", "until", "limit", "cursor", *more}
    ]
    faults += [(name, "a NUL byte is not allowed") for name, text in query.items() if "\0" in text]
    times: dict[str, datetime | None] = {"since": None, "until": None}
    for name in times:
        if name in query:
            try:
                at = datetime.fromisoformat(query[name])
                times[name] = in_utc(at if at.tzinfo else at.replace(tzinfo=UTC))
            except ValueError:
                faults.append((name, "not an ISO 8601 time"))
    ids: list[UUID] | None = None
    if "id" in query:
        try:
            ids = [UUID(query["id"])]
        except ValueError:
            faults.append(("id", "not a UUID"))
    asked = query.get("limit", str(PAGE))
    limit = int(asked) if asked.isdecimal() else 0
    if not 1 <= limit <= MAX_PAGE:
        faults.append(("limit", f"must be 1 to {MAX_PAGE}"))
    after: Cursor | None = None
    if "cursor" in query:
        try:
            after = _cursor(query["cursor"])
        except (ValueError, TypeError, AttributeError):
            faults.append(("cursor", "not a cursor of this list"))
    if faults:
        raise Problem(422, errors=faults)
    chosen = Filter(
        ids, query.get("target"), query.get("event_type"), times["since"], times["until"]
    )
    return chosen, after, limit
