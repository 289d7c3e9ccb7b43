"""Pending, failed and in-doubt alerts, and the ledger check."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import typer

from ostoja.api import MOST_IDS
from ostoja.failure import Exit, Failure
from ostoja.show import count, moment, name, prose, span
from ostoja.where import Session

PANEL = "Alerts"
_LISTS = {
    "pending": "List alerts that wait to be sent or retried.",
    "failed": "List alerts that failed; on-call was notified.",
    "in-doubt": "List e-mails whose delivery outcome is unknown; resolve each.",
}
_ENDS = ("delivered", "pending", "failed", "discarded", "in_doubt")
_CASES = ("open", "answered", "unanswered", "cancelled")
_CASE_FAULTS = ("stranded", "missing", "unlisted", "ownerless", "updates_overdue")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


Status = Literal["pending", "failed"]
Outcome = Literal["delivered", "resend", "discarded"]


def _time(given: str) -> str:
    """Read `2h` as two hours ago, else an ISO 8601 time, local unless it has an offset."""
    if found := re.fullmatch(r"(\d{1,6})([smhd])", given):
        return (datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})).isoformat()
    try:
        return datetime.fromisoformat(given).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter("2h, 30m, 1d (ago), or 2026-11-25T23:00") from None


Target = Annotated[str | None, typer.Option(help="Only for this target.")]
EventType = Annotated[str | None, typer.Option(help="Only of this event type.")]
Since = Annotated[
    str | None, typer.Option(parser=_time, metavar="TIME", help="Accepted since: 2h, or a time.")
]
Until = Annotated[
    str | None, typer.Option(parser=_time, metavar="TIME", help="Accepted before: 2h, or a time.")
]
Limit = Annotated[int, typer.Option(min=1, help="At most this many, the oldest first.")]
OfStatus = Annotated[Status | None, typer.Option(help="Only with this status.")]
Ids = Annotated[list[UUID] | None, typer.Argument(metavar="ID", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def add_to(app: typer.Typer) -> None:
    for which, help_ in _LISTS.items():
        app.command(which, rich_help_panel=PANEL, help=help_)(_lister(which))
    for title, command in (
        ("stats", stats), ("show", show), ("retry", retry), ("discard", discard),
        ("resolve", resolve),
    ):  # fmt: skip
        app.command(title, rich_help_panel=PANEL)(command)
    ledger = typer.Typer(no_args_is_help=True, help="Is every accepted alert accounted for?")
    ledger.command("check")(check)
    app.add_typer(ledger, name="ledger", rich_help_panel=PANEL)


def _lister(which: str) -> Callable[..., None]:
    """Create the command that lists the alerts of one state, by its name in the API."""

    def listed(
        context: typer.Context,
        target: Target = None,
        event_type: EventType = None,
        since: Since = None,
        until: Until = None,
        limit: Limit = 20,
    ) -> None:
        filters = {"target": target, "event_type": event_type, "since": since, "until": until}
        _list(context.obj, which, limit, filters)

    return listed


def _list(session: Session, which: str, limit: int, filters: dict[str, str | None]) -> None:
    rows: list[dict[str, Any]] = []
    more = False
    for page in session.api.pages(f"/api/dlq/{which}", limit=limit, **filters):
        more = page["next_cursor"] is not None
        if session.screen.as_json:
            for item in page["items"]:
                session.screen.json(item)
        else:
            rows += page["items"]
    if session.screen.as_json:
        return
    ends = "Next try" if which == "pending" else "Ended"
    if rows:
        session.screen.table(
            [prose("Alert"), name("Target"), count("Tries"), name("Accepted"), name(ends)],
            [
                (
                    f"{row['id']}\n{_why(row)}",
                    row["target"],
                    row["attempts"],
                    moment(row["created_at"]),
                    moment(row["next_attempt_at"] if which == "pending" else row["finished_at"]),
                )
                for row in rows
            ],
        )
    else:
        session.screen.line("none")
    if more:
        session.screen.note(f"these are the oldest {limit:,}; --limit {10 * limit} shows more")


def _why(row: dict[str, Any]) -> str:
    why = _reason(row)
    return f"{row['event_type']}: {why}" if why else str(row["event_type"])


def _reason(row: dict[str, Any]) -> str:
    reason, message = row["reason"] or "", row["error_message"] or ""
    return message if message.startswith(reason) else f"{reason}: {message}"


def show(
    context: typer.Context,
    id_: Annotated[UUID, typer.Argument(metavar="ID", show_default=False)],
) -> None:
    """Show one alert at each target, attempt by attempt. Needs the service key."""
    session: Session = context.obj
    found = session.api.get(f"/api/alerts/{id_}", key="X-API-KEY")
    if session.screen.is_json(found):
        return
    for line in (
        f"{found['event_type']}, {found['severity']}: {found['state']}",
        f"accepted {_in_a_line(found['accepted_at'])}",
        f"request {found['request_id']}",
    ):
        session.screen.line(line)
    session.screen.table(
        [name("Target"), count("Try"), name("At"), name("State"), prose("Why")],
        [row for each in found["deliveries"] for row in _history(each)],
    )


def _in_a_line(at: str) -> str:
    return (moment(at) or "").replace("\n", ", ")


def _history(delivery: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of one target: its state, and each attempt with its outcome."""
    at = moment(delivery["finished_at"] or delivery["next_attempt_at"])
    yield delivery["target"], delivery["attempts"], at, delivery["state"], _details(delivery)
    for each in delivery["history"]:
        parts = (each["reason"], each["status"], each["excerpt"], f"({each['seconds']:.1f} s)")
        why = " ".join(str(part) for part in parts if part)
        yield "", each["attempt"], moment(each["at"]), each["outcome"], why


def _details(delivery: dict[str, Any]) -> str:
    parts = (
        _reason(delivery),
        delivery["operator"] and f"by {delivery['operator']}",
        delivery["duplicates"] and f"repeated {delivery['duplicates']:,} times",
        delivery["duplicate_of"] and f"a duplicate of {delivery['duplicate_of']}",
    )
    return "\n".join(part for part in parts if part)


def stats(context: typer.Context) -> None:
    """Count alerts by target."""
    session: Session = context.obj
    found = session.api.get("/api/dlq/stats")
    if session.screen.is_json(found):
        return
    names = ("pending", "failed", "in_doubt", "delivered", "discarded", "duplicates")
    titles = ("Pending", "Failed", "In doubt", "Delivered", "Discarded", "Duplicates")
    rows = [*sorted(found["targets"].items()), ("all", found)]
    session.screen.table(
        [name("Target"), *map(count, titles), name("Oldest")],
        [
            (target, *(row[each] for each in names), _oldest(row["oldest_pending_seconds"]))
            for target, row in rows
        ],
    )


def _oldest(seconds: float | None) -> str | None:
    return span(seconds) if seconds else None


def retry(
    context: typer.Context,
    *,
    ids: Ids = None,
    target: Target = None,
    status: OfStatus = None,
    event_type: EventType = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> None:
    """Retry alerts with all attempts reset: those named, or all that the options select."""
    session: Session = context.obj
    filters = _filters(target, status, event_type, since, until)
    _ask_first(session, "Retry", ids, filters, yes=yes)
    requeued = skipped = empty = 0
    for answer in _bulk(session, "retry", ids, filters, {}, "requeued"):
        requeued += answer["requeued"]
        if not answer.get("more"):  # each call skips the same ones
            skipped += answer["skipped"]
            empty += answer.get("without_payload", 0)
    if not session.screen.as_json:
        session.screen.line(f"requeued {requeued:,}, skipped {skipped:,}")
        if skipped:
            session.screen.note(
                "skipped: pending with all attempts left, being sent, of a target no longer "
                f"configured, or without a payload ({empty:,})"
            )
    _all_there(ids, requeued + skipped)


def discard(
    context: typer.Context,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the audit record.")],
    ids: Ids = None,
    target: Target = None,
    status: OfStatus = None,
    event_type: EventType = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> None:
    """Discard alerts for good: those named, or all that the options select."""
    session: Session = context.obj
    filters = _filters(target, status, event_type, since, until)
    _ask_first(session, "Discard for good", ids, filters, yes=yes)
    discarded = sum(
        answer["discarded"]
        for answer in _bulk(session, "discard", ids, filters, {"reason": reason}, "discarded")
    )
    if not session.screen.as_json:
        session.screen.line(f"discarded {discarded:,}")
    _all_there(ids, discarded)


def _filters(
    target: str | None,
    status: Status | None,
    event_type: str | None,
    since: str | None,
    until: str | None,
) -> dict[str, str]:
    given = {"target": target, "status": status, "event_type": event_type}
    given |= {"since": since, "until": until}
    return {name: value for name, value in given.items() if value is not None}


def _ask_first(
    session: Session, what: str, ids: list[UUID] | None, filters: dict[str, str], *, yes: bool
) -> None:
    if not ids and not filters:
        raise Failure(Exit.USAGE, "name alerts by id, or select them: --target, --status, --since")
    if ids or yes:
        return
    chosen = ", ".join(f"{name} {value}" for name, value in filters.items())
    known = filters.keys() <= {"target", "status"}
    number = f"{_number(session, filters):,} alerts" if known else "every alert"
    typer.confirm(f"{what} {number} ({chosen})?", abort=True, err=True)


def _number(session: Session, filters: dict[str, str]) -> int:
    found = session.api.get("/api/dlq/stats")
    if "target" in filters:
        found = found["targets"].get(filters["target"], {})
    states = [filters["status"]] if "status" in filters else ["pending", "failed"]
    return sum(found.get(state, 0) for state in states)


def _bulk(
    session: Session,
    verb: str,
    ids: list[UUID] | None,
    filters: dict[str, str],
    more: dict[str, str],
    done: str,
) -> Iterator[dict[str, Any]]:
    """Repeat the call until everything is done: one call works for some seconds."""
    parts = [ids[at : at + MOST_IDS] for at in range(0, len(ids), MOST_IDS)] if ids else [None]
    known = filters.keys() <= {"target", "status"}
    total = len(ids) if ids else _number(session, filters) if known else None
    with session.screen.progress() as bar:
        task = bar.add_task(verb, total=total)
        for part in parts:
            chosen = filters if part is None else {**filters, "ids": [str(id_) for id_ in part]}
            while True:
                answer = session.api.call("POST", f"/api/dlq/{verb}", {**chosen, **more})
                if session.screen.as_json:
                    session.screen.json(answer)
                bar.advance(task, answer[done])
                yield answer
                if not answer.get("more"):
                    break
                if not answer[done]:
                    raise Failure(Exit.NOT_OK, "no progress at the moment; try again later")


def _all_there(ids: list[UUID] | None, found: int) -> None:
    if ids and found < len(ids):
        raise Failure(
            Exit.NOT_OK,
            f"only {found} of {len(ids)} alerts are pending or failed, and not being sent",
        )


def resolve(
    context: typer.Context,
    id_: Annotated[UUID, typer.Argument(metavar="ID", show_default=False)],
    outcome: Annotated[Outcome, typer.Option("--as", help="What happened to it.")],
    reason: Annotated[str, typer.Option(help="How you know, for the audit record.")],
    target: Target = None,
) -> None:
    """Resolve an e-mail in doubt: it arrived, it is sent again, or it is discarded."""
    session: Session = context.obj
    body = {"id": str(id_), "outcome": outcome, "reason": reason, "target": target}
    answer = session.api.call("POST", "/api/dlq/resolve", body)
    session.screen.answer(answer, f"{answer['id']}: {answer['outcome']}")


def check(context: typer.Context) -> None:
    """Check that no accepted alert is lost; the exit code says so too."""
    session: Session = context.obj
    found = session.api.get("/api/ledger/check")
    if not session.screen.is_json(found):
        rows = [("accepted", found["accepted"]), *((f"  {each}", found[each]) for each in _ENDS)]
        rows += [
            (each, found[each])
            for each in ("stranded", "unread", "missing", "duplicates")
            if each in found and (each == "stranded" or found[each])
        ]
        session.screen.table([name("Alerts"), count("Rows")], rows)
        if cases := found.get("cases"):
            rows = [("opened", cases["opened"]), *((f"  {each}", cases[each]) for each in _CASES)]
            rows += [(each, cases[each]) for each in _CASE_FAULTS if cases[each]]
            session.screen.table([name("Cases"), count("Rows")], rows)
        if found["ok"] and (cases is None or cases["ok"]):
            session.screen.line("ok: nothing is lost", "green")
    if found["ok"] is None:
        raise Failure(
            Exit.UNREACHABLE,
            "RabbitMQ cannot say whether alerts.intake.dead holds accepted alerts; all others are "
            "accounted for: check again in a minute",
        )
    if not found["ok"]:
        missing = found["accepted"] - sum(found[each] for each in _ENDS)
        raise Failure(
            Exit.NOT_OK,
            f"the ledger check failed: {missing} not accounted for, "
            f"{found['stranded']} stranded, {found.get('unread', 0)} unreadable, "
            f"{found.get('missing', 0)} never came",
        )
    if (cases := found.get("cases")) and not cases["ok"]:
        faults = ", ".join(f"{cases[each]} {each}" for each in _CASE_FAULTS if cases[each])
        missing = cases["opened"] - sum(cases[each] for each in _CASES)
        raise Failure(
            Exit.NOT_OK, f"the check of cases failed: {faults or f'{missing} not accounted for'}"
        )
