"""A data subject's consent, and the trail that proves it."""

import csv
import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

from ostoja.commands import table
from ostoja.failure import Exit, Failure
from ostoja.show import moment, name, prose
from ostoja.where import Session

_REPORTED = (
    "who", "since", "given_at", "wording_version", "wording_sha256", "wording", "source",
    "confirmed_by", "trail_row", "trail_hash",
)  # fmt: skip


def add_to(app: typer.Typer) -> None:
    consent = typer.Typer(
        no_args_is_help=True, help="Consent, its trail, and a data subject's data."
    )
    acts: dict[str, Any] = {
        each.__name__: each for each in (audit, verify, withdraw, export, report, erase)
    }
    table.add(app, "People", "consent", do=acts, consent=consent)


def audit(session: Session, *, email: str) -> None:
    entries: list[dict[str, Any]] = []
    for page in session.api.pages(f"/api/consent/audit/{quote(email, safe='')}"):
        if session.screen.as_json:
            for entry in page["entries"]:
                session.screen.json(entry)
        entries += page["entries"]
    erasure = page["erasure"]
    if session.screen.as_json:
        session.screen.json({"erasure": erasure})
        return
    if entries:
        session.screen.table(
            [name("When"), name("What"), prose("Evidence")],
            [(moment(each["timestamp"]), each["action"], _proof(each)) for each in entries],
        )
    else:
        session.screen.line("no entries")
    if erasure:
        waiting = ", ".join(erasure["waiting_for"])
        session.screen.line(
            f"erasure: {erasure['status']}" + (f", waiting for {waiting}" if waiting else "")
        )


def _proof(entry: dict[str, Any]) -> str:
    known = ("timestamp", "action", "id", "email")
    return "\n".join(
        f"{field}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for field, value in entry.items()
        if field not in known and value is not None
    )


def verify(session: Session) -> None:
    for found in session.api.pages("/api/consent/audit/verify"):
        if not found["ok"]:
            break
        if found["next_cursor"]:
            session.screen.note(f"{found['rows']:,} rows so far")
    if not session.screen.is_json(found) and found["ok"]:
        session.screen.line(f"ok: {found['rows']:,} rows, none changed", "green")
    if not found["ok"]:
        raise Failure(
            Exit.NOT_OK,
            f"the trail was tampered with: first broken row {found['first_broken']}, "
            f"forged checkpoints {found['forged_checkpoints']}",
        )


def export(session: Session, *, email: str, output: Path | None) -> None:
    found = session.api.get(f"/api/consent/export/{quote(email, safe='')}")
    text = json.dumps(found, ensure_ascii=False, indent=None if session.screen.as_json else 2)
    if output is None:
        sys.stdout.write(text + "\n")
    else:
        _write(output, text)
        session.screen.note(f"written to {output}")
    if found["incomplete"]:
        raise Failure(
            Exit.NOT_OK, f"incomplete: {', '.join(found['incomplete'])} did not answer; try again"
        )


def report(session: Session, *, purpose: str, at: str, channel: str, output: Path) -> None:
    asked: dict[str, Any] = {"purpose": purpose, "channel": channel, "at": at}
    rows: list[dict[str, Any]] = []
    for page in session.api.pages("/api/consent/report", **asked):
        rows += page["items"]
    text = io.StringIO()
    written = csv.DictWriter(text, _REPORTED, extrasaction="ignore", lineterminator="\n")
    written.writeheader()
    # A spreadsheet must not run what somebody has typed.
    written.writerows({k: _inert(v) for k, v in row.items()} for row in rows)
    _write(output, text.getvalue().rstrip("\n"))
    hashed = hashlib.sha256(text.getvalue().encode()).hexdigest()
    about = asked | {"at": page["at"], "sha256": hashed, "people": len(rows)}
    _, signed = session.api.answer("POST", "/api/consent/report", about)
    _write(output.with_name(output.name + ".signed.json"), json.dumps(signed, indent=2))
    session.screen.note(f"{len(rows)} people in {output}; its hash is in the trail")


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t" else value


def _write(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path}: {error.strerror}") from None


def withdraw(session: Session, *, email: str, purpose: str | None) -> None:
    only = {"purpose": purpose} if purpose else {}
    _, answer = session.api.answer("POST", "/api/unsubscribe", {_kind(email): email, **only})
    if not session.screen.is_json(answer):
        left = answer.get("in_flight", 0)
        session.screen.line(f"withdrawn; {left} on their way" if left else "withdrawn")


def _kind(who: str) -> str:
    return "email" if "@" in who else "phone"


def erase(session: Session, *, email: str, yes: bool) -> None:
    if not yes:
        typer.confirm(f"Erase {email} for good?", abort=True, err=True)
    status, answer = session.api.answer("POST", "/api/consent/erase", {_kind(email): email})
    if not session.screen.is_json(answer):
        session.screen.line(f"erasure: {answer['erasure']['status']}")
        if answer["erasure"]["status"] == "in_progress":
            shows = f"`ostoja consent audit {answer['email']}` shows"
            session.screen.note(f"{shows} when every service has reported back")
    if status == 202:
        raise Failure(
            Exit.NOT_OK, "withdrawn, but not yet erased: a message is being sent; try again"
        )
