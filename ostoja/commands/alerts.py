"""Pending, failed and in-doubt alerts, and the ledger check."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from uuid import UUID

import typer

from ostoja.api import MOST_IDS
from ostoja.commands import table
from ostoja.commands.lists import (
    ALERTS,
    FILTERS,
    REPLAY,
    RESOLVE,
    argument,
    needed,
    option,
    reason_of,
)
from ostoja.commands.table import Do
from ostoja.failure import Exit, Failure
from ostoja.show import count, moment, name, prose
from ostoja.where import Session

PANEL = "Alerts"
_ENDS = ("delivered", "pending", "failed", "discarded", "in_doubt")
_CASES = ("open", "answered", "unanswered", "cancelled")
_CASE_FAULTS = ("stranded", "missing", "unlisted", "ownerless", "updates_overdue")


_CHOSEN: dict[str, Any] = {
    "ids": (argument("ID", kind=list[UUID], show_default=False), None),
    "target": FILTERS["target"],
    "status": option("Only with this status.", kind=Literal["pending", "failed"]),
    **{name: FILTERS[name] for name in ("event_type", "since", "until")},
    "yes": (needed("Do not ask for confirmation.", "--yes", "-y", kind=bool), False),
}


def add_to(app: typer.Typer) -> None:
    table.add(app, PANEL, *ALERTS)
    app.command("show", rich_help_panel=PANEL)(show)
    table.add(
        app, PANEL,
        Do(
            "retry",
            "Retry alerts with all attempts reset: those named, or all that the options select.",
            _CHOSEN, retry,
        ),
        Do(
            "discard", "Discard alerts for good: those named, or all that the options select.",
            {"reason": needed("Why, for the audit record."), **_CHOSEN}, discard,
        ),
        REPLAY,
        RESOLVE,
    )  # fmt: skip
    ledger = typer.Typer(no_args_is_help=True, help="Is every accepted alert accounted for?")
    ledger.command("check")(check)
    app.add_typer(ledger, name="ledger", rich_help_panel=PANEL)


def show(
    context: typer.Context,
    id_: Annotated[UUID, typer.Argument(metavar="ID", show_default=False)],
) -> None:
    """Show one alert at each target, attempt by attempt. Needs the service key."""
    session: Session = context.obj
    found = session.api.get(f"/api/alerts/{id_}", key="X-API-KEY")
    if session.screen.is_json(found):
        return
    accepted = str(moment(found["accepted_at"])).replace("\n", ", ")
    for line in (
        f"{found['event_type']}, {found['severity']}: {found['state']}",
        f"accepted {accepted}",
        f"request {found['request_id']}",
    ):
        session.screen.line(line)
    session.screen.table(
        [name("Target"), count("Try"), name("At"), name("State"), prose("Why")],
        [row for each in found["deliveries"] for row in _history(each)],
    )


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
        reason_of(delivery),
        delivery["operator"] and f"by {delivery['operator']}",
        delivery["duplicates"] and f"repeated {delivery['duplicates']:,} times",
        delivery["duplicate_of"] and f"a duplicate of {delivery['duplicate_of']}",
    )
    return "\n".join(part for part in parts if part)


def retry(session: Session, ids: list[UUID] | None, *, yes: bool, **options: str | None) -> None:
    filters = {name: value for name, value in options.items() if value is not None}
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
    session: Session, ids: list[UUID] | None, *, reason: str, yes: bool, **options: str | None
) -> None:
    filters = {name: value for name, value in options.items() if value is not None}
    _ask_first(session, "Discard for good", ids, filters, yes=yes)
    discarded = sum(
        answer["discarded"]
        for answer in _bulk(session, "discard", ids, filters, {"reason": reason}, "discarded")
    )
    if not session.screen.as_json:
        session.screen.line(f"discarded {discarded:,}")
    _all_there(ids, discarded)


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
