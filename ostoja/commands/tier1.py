"""Takes over what the Flask chatbot that Ostoja replaces has stored: its four tables, read only.

Whatever kills it, it may run again. Followups takes a row of an import once; an alert's
Idempotency-Key is derived from its row, and the report outlives the ledger's memory of it.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from ostoja.commands import table
from ostoja.failure import Exit, Failure
from ostoja.show import count, name, prose
from ostoja.where import Session

Row = tuple[str, dict[str, Any]]
"""Where it comes from, as `consent_audit_log 17`, and what is sent of it."""

PART = 1_000  # rows of one request
STAGES = ("withdrawals", "followups", "conversations", "consents", "alerts")
"""In this order nobody is asked to confirm what they withdrew."""
COUNTED = ("withdrawals", "followups", "created", "updated", "grants", "to_confirm")
NEEDED = ("row", "email", "withdrawn_at", "followup", "consent")  # a row's other fields are facts
EXPECTED = ("no e-mail", "not sent", "revoked consent", "withdrew, too")
_SQL = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
_QUERIES = dict(re.findall(r"^-- name: (\w+)\n(.*?);$", _SQL, re.DOTALL | re.MULTILINE))


def add_to(app: typer.Typer) -> None:
    imports = typer.Typer(no_args_is_help=True, help="Take over what another system has stored.")
    table.add(app, "Deployment", "imports", do={"tier1": take_over}, **{"import": imports})


class Report:
    """Counts; and a file with each alert taken and each row left out, without personal data."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.rows: Counter[str] = Counter()
        self.new: Counter[str] = Counter()
        self.left: Counter[tuple[str, str]] = Counter()
        lines = path.read_bytes().splitlines() if path.exists() else []
        self.sent = {_object(line).get("key") for line in lines}
        self._file = path.open("a", encoding="utf-8") if writes else None
        self.write("")  # ends a line that a kill has cut off

    def write(self, line: str) -> None:
        if self._file:
            self._file.write(f"{line}\n")
            self._file.flush()

    def leave(self, place: str, why: str) -> None:
        self.left[place.partition(" ")[0], why] += 1
        self.write(json.dumps({"row": place, "left": why}))


def _object(text: bytes | str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _opened(database: str, zone: str) -> Iterator[Any]:
    """Open the old database, as it is at this moment."""
    try:
        import psycopg2
    except ImportError:
        raise Failure(Exit.USAGE, "this needs a driver: pipx install 'ostoja[tier1]'") from None
    url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", database)  # SQLAlchemy's, too
    try:
        connection = psycopg2.connect(url, client_encoding="UTF8")
        try:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            connection.cursor().execute("SET LOCAL TIME ZONE %s", [zone])
            yield connection
        finally:
            connection.close()
    except psycopg2.Error as error:
        # What is wrong with a URL is said with its password.
        is_url = isinstance(error, psycopg2.OperationalError) or error.pgcode
        why = str(error).strip() if is_url else "not a postgresql:// URL"
        raise Failure(Exit.UNREACHABLE, f"the old database: {why}") from None


def _old_rows(old: Any, stage: str, wording: str | None, report: Report) -> Iterator[Row]:
    with old.cursor() as cursor:
        cursor.execute(_QUERIES["columns"])
        columns = "".join(f", {column}::text" for (column,) in cursor)
    with old.cursor(name=stage) as cursor:  # streams: a table may be larger than the memory
        cursor.execute(_QUERIES[stage].format(columns=columns), {"wording": wording})
        for place, left, *values in cursor:
            if left is None:
                report.rows[stage] += 1
                named = zip(cursor.description[2:], values, strict=True)
                yield place, {each.name: value for each, value in named if value or value == 0}
            else:
                report.leave(place, left)


def _import(session: Session, rows: Iterator[Row], report: Report) -> None:
    """Import the rows; a fact that is refused is left out, and the rest is taken."""
    while part := list(islice(rows, PART)):
        while part:
            body = "".join(f"{json.dumps(fields)}\n" for _, fields in part).encode()
            found = session.api.call("POST", "/api/leads/import", body, key="X-API-KEY")
            report.new.update({each: found[each] for each in COUNTED})
            again = []
            for rejected in found["rejected"]:
                place, fields = part[rejected["line"] - 1]
                faults = {each["field"]: each["message"] for each in rejected["errors"]}
                why = "; ".join(f"{each}: {message}" for each, message in faults.items())
                if all(each in fields and not each.startswith(NEEDED) for each in faults):
                    again.append((place, {k: v for k, v in fields.items() if k not in faults}))
                    why = f"only this is: {why}"
                report.leave(place, why)
            part = again


def _send(session: Session, rows: Iterator[Row], report: Report) -> None:
    for place, alert in rows:
        if isinstance(text := alert.get("payload"), str):
            alert["payload"] = _object(text) or {"text": text}
        digest = hashlib.sha256(json.dumps(alert, sort_keys=True).encode()).hexdigest()
        if (key := f"tier1-{digest}") in report.sent:
            continue
        alert.pop("at", None)
        once = {"Idempotency-Key": key}
        try:
            taken = session.api.call("POST", "/api/alerts", alert, key="X-API-KEY", headers=once)
        except Failure as failure:
            if failure.code is not Exit.USAGE:
                raise
            report.leave(place, str(failure))
        else:
            report.sent.add(key)
            report.new["alerts"] += 1
            report.write(json.dumps({"row": place, "key": key, "alert": taken["id"]}))


def take_over(
    session: Session, *, database: str, wording: str | None, zone: str, report: str, yes: bool
) -> None:
    try:
        words = Path(wording).read_text(encoding="utf-8").strip() if wording else None
        done = Report(Path(report), writes=yes)
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, str(error)) from None
    with _opened(database, zone) as old:
        for stage in STAGES:
            found = _old_rows(old, stage, words, done)
            if not yes:
                sum(1 for _ in found)  # counts them
            elif stage == "alerts":
                _send(session, found, done)
            else:
                _import(session, found, done)
    left = [{"table": old, "why": why, "rows": n} for (old, why), n in done.left.items()]
    answer = {"rows": dict(done.rows), "new": dict(done.new), "left": left}
    if not session.screen.is_json(answer):
        session.screen.table([name("Taken"), count("Rows")], done.rows.items())
        columns = [name("Left out of"), count("Rows"), prose("Why")]
        session.screen.table(columns, [(each["table"], each["rows"], each["why"]) for each in left])
        new = ", ".join(f"{each} {n:,}" for each, n in done.new.items())
        session.screen.note(f"new: {new}; {report}" if yes else "nothing was done: --yes does it")
    faults = sum(n for (_, why), n in done.left.items() if not why.startswith(EXPECTED))
    if yes and faults:
        raise Failure(Exit.NOT_OK, f"{faults:,} rows need a look")
