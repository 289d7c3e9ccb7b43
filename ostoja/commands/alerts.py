"""Pending, failed and in-doubt alerts, and the ledger check."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

import typer

from ostoja.api import MOST_IDS
from ostoja.commands import table
from ostoja.failure import Exit, Failure
from ostoja.show import count, name
from ostoja.where import Session

PANEL = "Alerts"
_ENDS = ("delivered", "pending", "failed", "discarded", "in_doubt")
_CASES = ("open", "answered", "unanswered", "cancelled")
_ASKED = {"retry": "Retry", "discard": "Discard for good"}
_CASE_FAULTS = ("stranded", "missing", "unlisted", "ownerless", "updates_overdue")


def add_to(app: typer.Typer) -> None:
    table.add(app, PANEL, "alerts", "alert")
    retry, discard = partial(_change, "retry", "requeued"), partial(_change, "discard", "discarded")
    table.add(app, PANEL, "chosen_alerts", do={"retry": retry, "discard": discard})
    ledger = typer.Typer(no_args_is_help=True, help="Is every accepted alert accounted for?")
    table.add(app, PANEL, "ledger", do={"check": check}, ledger=ledger)


def _change(
    verb: str,
    done: str,
    session: Session,
    *,
    ids: list[UUID] | None,
    yes: bool,
    reason: str | None = None,
    **options: str | None,
) -> None:
    filters = {name: value for name, value in options.items() if value is not None}
    if not ids and not filters:
        raise Failure(Exit.USAGE, "name alerts by id, or select them: --target, --status, --since")
    if not ids and not yes:
        _confirm(session, verb, filters)
    parts = [ids[at : at + MOST_IDS] for at in range(0, len(ids), MOST_IDS)] if ids else [None]
    total: Counter[str] = Counter()
    for part in parts:
        body = filters if part is None else {**filters, "ids": [str(id_) for id_ in part]}
        for answer in _answers(session, verb, done, {**body, "reason": reason} if reason else body):
            total[done] += answer[done]
            if not answer.get("more"):  # each call skips the same ones
                skipped = (each for each in ("skipped", "without_payload") if each in answer)
                total.update({each: answer[each] for each in skipped})
    if not session.screen.as_json:
        shown = (each for each in (done, "skipped") if each in total)
        session.screen.line(", ".join(f"{each} {total[each]:,}" for each in shown))
        if total["skipped"]:
            session.screen.note(
                "skipped: pending with all attempts left, being sent, of a target no longer "
                f"configured, or without a payload ({total['without_payload']:,})"
            )
    if ids and (found := total[done] + total["skipped"]) < len(ids):
        raise Failure(
            Exit.NOT_OK,
            f"only {found} of {len(ids)} alerts are pending or failed, and not being sent",
        )


def _answers(session: Session, verb: str, done: str, body: Any) -> Iterator[dict[str, Any]]:
    """Repeat the call until everything is done: one call works for some seconds."""
    while True:
        answer = session.api.call("POST", f"/api/dlq/{verb}", body)
        if session.screen.as_json:
            session.screen.json(answer)
        yield answer
        if not answer.get("more"):
            return
        if not answer[done]:
            raise Failure(Exit.NOT_OK, "no progress at the moment; try again later")
        session.screen.note(f"{done} {answer[done]:,} more")


def _confirm(session: Session, verb: str, filters: dict[str, str]) -> None:
    number = "every alert"
    if filters.keys() <= {"target", "status"}:
        found = session.api.get("/api/dlq/stats")
        if "target" in filters:
            found = found["targets"].get(filters["target"], {})
        states = [filters["status"]] if "status" in filters else ["pending", "failed"]
        number = f"{sum(found.get(state, 0) for state in states):,} alerts"
    chosen = ", ".join(f"{name} {value}" for name, value in filters.items())
    typer.confirm(f"{_ASKED[verb]} {number} ({chosen})?", abort=True, err=True)


def check(session: Session) -> None:
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
