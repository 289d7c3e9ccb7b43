"""Routes: parse, call, answer. The gateway has checked keys; it says who calls in X-Caller."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Annotated, Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import db, logs
from libs.common.broker import BrokerUnavailable
from libs.common.web import CALLER, Model, Problem, json_response, parse
from services.alerts import delivery, retention, schema
from services.alerts.alert import BreakerState, Reason, State
from services.alerts.balance import Balance
from services.alerts.board import Board
from services.alerts.consumers import Intake
from services.alerts.messages import AlertAccepted
from services.alerts.schema import NotOwner, Schema
from services.alerts.store import questions, steps, upkeep
from services.alerts.store.questions import Cursor, Filter
from services.alerts.sweep import Sweep
from services.alerts.valve import Valve

log = logs.get_logger(__name__)

PAGE = 100
MAX_PAGE = 1_000
PAGE_BYTES = 8 * 1024 * 1024  # of payloads; beyond it a page is shorter than was asked for
BATCH = 200
# The gateway waits 20 s for an answer; there is one before, and the rest is for the next call.
BULK_SECONDS = 12.0
RETRIED_PER_SECOND = 2_000


def _utc(at: datetime) -> datetime:
    """PostgreSQL takes no offset of 16 hours or more; Python does."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("before the year 1 or after 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
Text = Annotated[str, Field(min_length=1, max_length=2_000)]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Accept(BaseModel):
    """From the gateway; a field that is new there must not be refused here."""

    model_config = ConfigDict(extra="ignore")
    alerts: list[AlertAccepted] = Field(min_length=1, max_length=1_000)


class _Chosen(Model):
    ids: Annotated[list[UUID], Field(min_length=1, max_length=1_000)] | None = None
    target: Text | None = None
    event_type: Text | None = None
    status: Literal["pending", "failed"] | None = None
    since: Moment | None = None
    until: Moment | None = None

    @model_validator(mode="after")
    def _chooses(self) -> "_Chosen":
        if not self.model_fields_set - {"reason"}:
            raise ValueError("name at least one of ids, target, event_type, status, since, until")
        return self

    def filter(self) -> Filter:
        return Filter(self.ids, self.target, self.event_type, self.since, self.until)

    def lists(self) -> tuple[str, ...]:
        return (self.status,) if self.status else ("failed", "pending")


class Retry(_Chosen):
    pass


class Discard(_Chosen):
    reason: Text = "discarded by hand"


class Resolve(Model):
    id: UUID
    outcome: Literal["delivered", "resend", "discarded"]
    reason: Text
    target: Text | None = None


class Cleanup(Model):
    older_than_hours: Annotated[float, Field(ge=0, le=87_600)]


class Api:
    def __init__(
        self,
        engine: AsyncEngine,
        intake: Intake,
        sweep: Sweep,
        board: Board,
        valves: Mapping[str, Valve],
        schema: Schema,
        balance: Balance,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._sweep = sweep
        self._board = board
        self._valves = valves
        self._schema = schema
        self._balance = balance

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/health/deep", self.health),
            web.post("/internal/alerts", self.accept),
            web.get("/api/alerts/{id}", self.alert),
            web.get("/api/dlq/pending", _admin(self.list_of("pending"))),
            web.get("/api/dlq/failed", _admin(self.list_of("failed"))),
            web.get("/api/dlq/in-doubt", _admin(self.list_of("in_doubt"))),
            web.get("/api/dlq/stats", _admin(self.stats)),
            web.post("/api/dlq/retry", _admin(self.retry)),
            web.post("/api/dlq/discard", _admin(self.discard)),
            web.post("/api/dlq/resolve", _admin(self.resolve)),
            web.post("/api/dlq/cleanup", _admin(self.cleanup)),
            web.get("/api/breakers", _admin(self.breakers)),
            web.post("/api/breakers/{target}/reset", _admin(self.reset)),
            web.get("/api/ledger/check", _admin(self.check)),
            web.post("/api/migration/create-dead-letter-queue", _admin(self.create_relation)),
            web.get("/api/migration/dlq-status", _admin(self.relation)),
        ]

    async def accept(self, request: web.Request) -> web.Response:
        """Intake with the broker away: the same message under the same id, into the ledger."""
        body = await parse(request, Accept)
        async with self._engine.begin() as tx:
            await self._intake.accept(tx, body.alerts, logs.request_id.get())
        return json_response({"accepted": len(body.alerts)}, status=202)

    async def alert(self, request: web.Request) -> web.Response:
        alert_id = _uuid(request.match_info["id"])
        async with self._engine.connect() as tx:
            found = await questions.find(tx, alert_id)
        rows = found.rows
        if not rows:
            # Accepted a moment ago it may still be on its way into the ledger.
            raise Problem(404, detail="no such alert", headers={"Retry-After": "1"})
        return json_response(
            {
                "id": str(alert_id),
                "event_type": rows[0].event_type,
                "severity": rows[0].severity,
                "state": _overall(rows),
                "attempts": sum(row.attempt for row in rows),
                "accepted_at": rows[0].asked_at.isoformat(),
                "request_id": rows[0].asked_by,
                "deliveries": [
                    _shown(row)
                    | {
                        "duplicate_of": row.duplicate_of and str(row.duplicate_of),
                        "history": [
                            {
                                "attempt": each.number,
                                "at": each.ended_at.isoformat(),
                                "outcome": each.outcome,
                                "reason": each.reason,
                                "status": each.status,
                                "seconds": round(each.seconds, 4),
                                "excerpt": each.excerpt,
                            }
                            for each in found.attempts
                            if (each.alert_id, each.target) == (row.alert_id, row.target)
                        ],
                    }
                    for row in rows
                ],
            }
        )

    def list_of(self, name: str) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            chosen, after, limit = _query(request)
            rows: list[Any] = []
            size, more = 0, True
            async with self._engine.connect() as tx:
                while more and len(rows) < limit and size < PAGE_BYTES:
                    asked = min(PAGE, limit - len(rows))
                    some = await questions.page(tx, name, chosen, after, asked + 1)
                    more = len(some) > asked
                    rows += some[:asked]
                    size += sum(row.size or 0 for row in some)
                    after = _key(rows[-1]) if rows else None
            return json_response(
                {
                    "items": [_shown(row) | {"payload": row.payload} for row in rows],
                    "next_cursor": _cursor_of(rows[-1]) if more else None,
                }
            )

        return handler

    async def stats(self, _: web.Request) -> web.Response:
        async with self._engine.connect() as tx:
            targets = await questions.stats(tx)
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
        """Hand out what is chosen; asked again, this goes on where it stopped."""
        body = await parse(request, Retry)
        changes = {**upkeep.AFRESH, "operator": _operator(request)}
        async with self._engine.connect() as tx:
            lists = () if body.status is None and body.ids is not None else body.lists()
            matched, empty = await questions.count(tx, body.filter(), lists)
        requeued = 0

        async def hand_out(tx: AsyncConnection, rows: list[Any]) -> None:
            nonlocal requeued
            await upkeep.hand_out(tx, rows, later=requeued / RETRIED_PER_SECOND, **changes)
            requeued += len(rows)

        whole = await self._each(body, hand_out, retriable=list(self._valves))
        log.info("dlq.retried", operator=_operator(request), matched=matched, requeued=requeued)
        answer = {"matched": matched, "requeued": requeued, "skipped": max(0, matched - requeued)}
        if empty:  # erased, or its time was over: there is nothing to send
            answer["without_payload"] = empty
        return json_response(answer if whole else {**answer, "more": True})

    async def discard(self, request: web.Request) -> web.Response:
        body = await parse(request, Discard)
        discarded = 0

        async def end(tx: AsyncConnection, rows: list[Any]) -> None:
            nonlocal discarded
            operator = _operator(request)
            await upkeep.end(tx, rows, State.DISCARDED, Reason.BY_HAND, body.reason, operator)
            await _tell_all(tx, rows, State.DISCARDED)
            discarded += len(rows)

        whole = await self._each(body, end)
        log.info("dlq.discarded", operator=_operator(request), rows=discarded)
        return json_response({"discarded": discarded, **({} if whole else {"more": True})})

    async def _each(
        self,
        body: _Chosen,
        act: Callable[[AsyncConnection, list[Any]], Awaitable[None]],
        *,
        retriable: Sequence[str] | None = None,
    ) -> bool:
        """Act on the chosen rows that nobody is at, some at a time, each time a transaction.

        :returns: False when the time was over before they were: what is left is there for the next
            call, which the answer to this one must not be late for
        """
        stop = monotonic() + BULK_SECONDS
        for name in body.lists():
            after: Cursor | None = None
            while True:
                if monotonic() > stop:
                    return False
                async with self._engine.begin() as tx:
                    rows = await questions.locked(
                        tx, name, body.filter(), after, BATCH, retriable=retriable
                    )
                    free = [row for row in rows if row.state in {State.PENDING, State.FAILED}]
                    if free:
                        await act(tx, free)
                if len(rows) < BATCH:
                    break
                after = _key(rows[-1])
        return True

    async def resolve(self, request: web.Request) -> web.Response:
        """A person found out what became of a mail in doubt; the only way out of it."""
        body = await parse(request, Resolve)
        operator = _operator(request)
        async with self._engine.begin() as tx:
            chosen = Filter(ids=[body.id], target=body.target)
            rows = await questions.locked(tx, "in_doubt", chosen, None, BATCH)
            if not rows:
                raise Problem(404, detail="nothing with this id is in doubt")
            for ended in map(steps.ended, rows):
                if ended.once is not None:  # known now: no withdrawal need wait for it any more
                    await delivery.return_permit(tx, ended.alert_id, ended.attempt, ended.once)
            if body.outcome == "resend":
                if any(row.empty for row in rows):
                    raise Problem(
                        409, detail="its payload was erased, or its time was over: nothing to send"
                    )
                if any(row.target not in self._valves for row in rows):
                    raise Problem(409, detail="its target is not configured any more")
                await upkeep.hand_out(
                    tx, rows, **upkeep.AFRESH, error=body.reason, operator=operator
                )
            else:
                state = State(body.outcome)
                await upkeep.end(tx, rows, state, Reason.BY_HAND, body.reason, operator)
                await _tell_all(tx, rows, state)
        log.info("dlq.resolved", operator=operator, id=str(body.id), outcome=body.outcome)
        return json_response({"id": str(body.id), "outcome": body.outcome, "resolved": len(rows)})

    async def cleanup(self, request: web.Request) -> web.Response:
        body = await parse(request, Cleanup)
        deleted = await retention.purge(self._engine, body.older_than_hours * 3600)
        log.info("dlq.cleaned_up", operator=_operator(request), deleted=deleted)
        return json_response({"deleted": deleted})

    async def breakers(self, _: web.Request) -> web.Response:
        return json_response(await self._board.now())

    async def reset(self, request: web.Request) -> web.Response:
        target = request.match_info["target"]
        if target not in self._valves:
            raise Problem(404, detail=f"no such target; there are {', '.join(self._valves)}")
        await self._board.reset(target, _operator(request))
        return json_response({target: (await self._board.now())[target]})

    async def check(self, request: web.Request) -> web.Response:
        return json_response(await self._balance.check(full=_full(request)))

    async def create_relation(self, request: web.Request) -> web.Response:
        try:
            found, made = await self._schema.create()
        except NotOwner:
            raise Problem(
                409,
                detail="the tables are the owner's, whose access is not configured here; run: "
                f"{schema.COMMAND}",
            ) from None
        log.info("schema.created", operator=_operator(request), made=made)
        message = "created" if made else "was there already"
        return json_response(
            {
                "success": found.complete,
                "message": f"{schema.RELATION} {message}",
                "tables": found.tables,
                "indexes": found.indexes,
            }
        )

    async def relation(self, _: web.Request) -> web.Response:
        found = await self._schema.look()
        return json_response(
            {
                "exists": schema.RELATION in found.tables,
                "up_to_date": found.current,
                "tables": found.tables,
                "indexes": found.indexes,
            }
        )

    async def health(self, _: web.Request) -> web.Response:
        components: dict[str, dict[str, str]] = {}
        try:
            async with self._engine.connect() as tx:
                await questions.ping(tx)
            components["postgres"] = {"status": "healthy"}
        except Exception as error:
            if not db.is_unavailable(error):
                raise
            components["postgres"] = {"status": "unhealthy", "detail": type(error).__name__}
        try:
            queues = await self._sweep.depths()
            components["rabbitmq"] = {"status": "healthy"}
        except BrokerUnavailable:
            queues = {}
            components["rabbitmq"] = {"status": "unhealthy"}
        breakers = await self._board.now()
        troubled = any(each["state"] != BreakerState.CLOSED for each in breakers.values())
        broken = any(each["status"] == "unhealthy" for each in components.values())
        return json_response(
            {
                # Without one of the two intake still works through the other.
                "status": "degraded" if broken or troubled else "healthy",
                "components": components,
                "circuit_breakers": breakers,
                "queues": queues,
            }
        )


def _admin(handler: Handler) -> Handler:
    async def checked(request: web.Request) -> web.StreamResponse:
        if request.headers.get(CALLER) != "admin":
            raise Problem(401, detail="this needs the admin key")
        return await handler(request)

    return checked


async def _tell_all(tx: Any, rows: list[Any], state: State) -> None:
    for row in rows:
        await delivery.tell(tx, steps.ended(row), state, Reason.BY_HAND)


def _overall(rows: list[Any]) -> str:
    """What a caller wants to know of all its targets: whether a person or time is still needed."""
    # What was handed to a fallback ends as the fallback's row does.
    states = [State(row.state) for row in rows if row.reason != Reason.FALLBACK]
    if any(state not in _ENDS for state in states):
        return State.PENDING
    return next((state for state in _ENDS if state in states), State.DISCARDED)


# The worst first.
_ENDS = (State.FAILED, State.IN_DOUBT, State.DISCARDED, State.DELIVERED)


def _shown(row: Any) -> dict[str, Any]:
    open_ = State(row.state) not in _ENDS
    return {
        "id": str(row.alert_id),
        "target": row.target,
        "event_type": row.event_type,
        "severity": row.severity,
        "state": row.state,
        "status": "pending" if open_ else row.state,
        "reason": row.reason,
        "error_message": row.error,
        "attempts": row.attempt,
        "duplicates": row.duplicates,
        "retry_count": max(row.spent - 1, 0),
        "created_at": row.created_at.isoformat(),
        "last_retry_at": row.last_attempt_at.isoformat() if row.last_attempt_at else None,
        "next_attempt_at": row.due_at.isoformat() if open_ else None,
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
        "request_id": row.request_id,
        "operator": row.operator,
    }


def _operator(request: web.Request) -> str | None:
    return request.headers.get("X-Operator", "")[:200] or None


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(404, detail="no such alert") from None


def _key(row: Any) -> Cursor:
    return row.created_at, row.alert_id, row.target


def _cursor_of(row: Any) -> str:
    at, alert_id, target = _key(row)
    text = json.dumps([at.isoformat(), str(alert_id), target])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _full(request: web.Request) -> bool:
    given = dict(request.query)
    full = given.pop("full", "false")
    faults = [(name, "unknown") for name in given]
    if full not in {"true", "false"}:
        faults.append(("full", "true or false"))
    if faults:
        raise Problem(422, errors=faults)
    return full == "true"


def _query(request: web.Request) -> tuple[Filter, Cursor | None, int]:
    query = request.query
    faults: list[tuple[str, str]] = [
        (name, "unknown")
        for name in query
        if name not in {"target", "event_type", "since", "until", "limit", "cursor"}
    ]
    faults += [(name, "a NUL byte is not allowed") for name, text in query.items() if "\0" in text]
    times: dict[str, datetime | None] = {"since": None, "until": None}
    for name in times:
        if name in query:
            try:
                at = datetime.fromisoformat(query[name])
                times[name] = _utc(at if at.tzinfo else at.replace(tzinfo=UTC))
            except ValueError:
                faults.append((name, "not an ISO 8601 time"))
    limit = PAGE
    if "limit" in query:
        limit = int(query["limit"]) if query["limit"].isdecimal() else 0
        if not 1 <= limit <= MAX_PAGE:
            faults.append(("limit", f"1 to {MAX_PAGE}"))
    after: Cursor | None = None
    if "cursor" in query:
        try:
            at, alert_id, target = json.loads(base64.urlsafe_b64decode(query["cursor"]))
            after = _utc(datetime.fromisoformat(at)), UUID(alert_id), str(target)
            if "\0" in after[2]:
                raise ValueError  # noqa: TRY301 - as any other forged cursor
        except (ValueError, TypeError, AttributeError):
            faults.append(("cursor", "not a cursor of this list"))
    if faults:
        raise Problem(422, errors=faults)
    chosen = Filter(
        None, query.get("target"), query.get("event_type"), times["since"], times["until"]
    )
    return chosen, after, limit
