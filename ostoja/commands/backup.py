"""Backups, their verification, and the restore."""

import json
from typing import Annotated, Any

import typer

from ostoja import where
from ostoja.failure import Exit, Failure
from ostoja.where import Session

PANEL = "Deployment"


def add_to(app: typer.Typer) -> None:
    app.command("backup", rich_help_panel=PANEL)(backup)
    app.command("verify-backup", rich_help_panel=PANEL)(verify)
    app.command("restore", rich_help_panel=PANEL)(restore)


def _do(command: str, **given: Any) -> dict[str, Any]:
    (answer,) = where.checkout_lines("deploy.backup", command, json.dumps(given))
    return answer


def backup(
    context: typer.Context,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Everything now; without, once a week.")
    ] = False,
) -> None:
    """Back up the database, the records of consent and the configuration to BACKUP_DIR.

    The keys (.env) are not in it: keep a copy of them elsewhere.
    """
    session: Session = context.obj
    made = _do("backup", full=full)
    session.screen.answer(
        made,
        f"backup {made['backup']}: {made['bytes']} bytes, {made['stored_bytes']} stored now",
    )


def verify(context: typer.Context) -> None:
    """Restore the newest backup to a private server, and check the trail and the ledger there.

    Success is recorded; BackupNotVerified fires without it.
    """
    session: Session = context.obj
    found = _do("verify")
    session.screen.answer(
        found, f"ok: backup {found['backup']}, restored in {found['seconds']} s; {_rows(found)}"
    )


def restore(
    context: typer.Context,
    *,
    to: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The state of that time: 2026-11-25 10:15:00+01."),
    ] = None,
    without_records: Annotated[
        bool,
        typer.Option("--without-records", help="Go on if no withdrawal was ever recorded."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Restore a deployment that was lost, from BACKUP_DIR and .env.

    It refuses while anything runs here or has data, says what it will do, and asks.
    """
    session: Session = context.obj
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
