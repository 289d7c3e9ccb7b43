"""Backups, their verification, and the restore."""

import json
from typing import Any

import typer

from ostoja import where
from ostoja.commands import table
from ostoja.commands.lists import needed, option
from ostoja.commands.table import Do
from ostoja.failure import Exit, Failure
from ostoja.where import Session


def add_to(app: typer.Typer) -> None:
    table.add(
        app, "Deployment",
        Do(
            "backup",
            "Back up the database, the records of consent and the configuration to BACKUP_DIR.\n\n"
            "The keys (.env) are not in it: keep a copy of them elsewhere.",
            {"full": (needed("Everything now; else once a week.", "--full", kind=bool), False)},
            backup,
        ),
        Do(
            "verify-backup",
            "Restore the newest backup to a private server, and check the trail and the ledger "
            "there.\n\nSuccess is recorded; BackupNotVerified fires without it.",
            {}, verify,
        ),
        Do(
            "restore",
            "Restore a deployment that was lost, from BACKUP_DIR and .env.\n\n"
            "It refuses while anything runs here or has data, says what it will do, and asks.",
            {
                "to": option("The state of that time: 2026-11-25 10:15:00+01.", metavar="TIME"),
                "without_records": (
                    needed(
                        "Go on if no withdrawal was ever recorded.", "--without-records", kind=bool
                    ),
                    False,
                ),
                "yes": (needed("Do not ask for confirmation.", "--yes", "-y", kind=bool), False),
            },
            restore,
        ),
    )  # fmt: skip


def _do(command: str, **given: Any) -> dict[str, Any]:
    (answer,) = where.checkout_lines("deploy.backup", command, json.dumps(given))
    return answer


def backup(session: Session, *, full: bool) -> None:
    made = _do("backup", full=full)
    session.screen.answer(
        made,
        f"backup {made['backup']}: {made['bytes']} bytes, {made['stored_bytes']} stored now",
    )


def verify(session: Session) -> None:
    found = _do("verify")
    session.screen.answer(
        found, f"ok: backup {found['backup']}, restored in {found['seconds']} s; {_rows(found)}"
    )


def restore(session: Session, *, to: str | None, without_records: bool, yes: bool) -> None:
    given = {"at": to, "without_records": without_records}
    for line in _do("plan", **given)["lines"]:
        session.screen.note(f"- {line}")
    if not yes:
        typer.confirm("Restore?", abort=True, err=True)
    found = _do("restore", **given)
    session.screen.answer(found, f"restored in {found['seconds']} s; {_rows(found)}")
    if not found["ok"]:
        raise Failure(Exit.NOT_OK, "the trail or the ledger is not whole: see --json")


def _rows(found: dict[str, Any]) -> str:
    trail, ledger = found["trail"]["rows"], found["ledger"]["accepted"]
    return f"{trail} rows of the trail, {ledger} of the ledger"
