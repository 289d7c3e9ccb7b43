"""Backups, their verification, and the restore."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ostoja import where
from ostoja.commands.alerts import Yes
from ostoja.commands.doctor import checkout
from ostoja.failure import Exit, Failure
from ostoja.where import Session

if TYPE_CHECKING:
    from deploy.backup.deployment import Deployment

PANEL = "Deployment"


def add_to(app: typer.Typer) -> None:
    app.command("backup", rich_help_panel=PANEL)(backup)
    app.command("verify-backup", rich_help_panel=PANEL)(verify)
    app.command("restore", rich_help_panel=PANEL)(restore)


@contextmanager
def _deployment() -> "Iterator[Deployment]":
    with checkout():
        from deploy.backup.deployment import Deployment
        from deploy.up.environment import load
        from deploy.up.process import ServerError

        path = where.env_file()
        try:
            yield Deployment(path.parent.resolve(), load(path))
        except (ServerError, OSError) as error:
            raise Failure(Exit.NOT_OK, str(error)) from None


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
    with _deployment() as here:
        made = here.backup(full=full)
    session.screen.answer(
        made,
        f"backup {made['backup']}: {made['bytes']} bytes, {made['stored_bytes']} stored now",
    )


def verify(context: typer.Context) -> None:
    """Restore the newest backup to a private server, and check the trail and the ledger there.

    Success is recorded; BackupNotVerified fires without it.
    """
    session: Session = context.obj
    with _deployment() as here:
        found = here.verify()
    session.screen.answer(
        found,
        f"ok: backup {found['backup']}, restored in {found['seconds']} s; "
        f"{found['trail']['rows']} rows of the trail, {found['ledger']['accepted']} of the ledger",
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
    yes: Yes = False,
) -> None:
    """Restore a deployment that was lost, from BACKUP_DIR and .env.

    It refuses while anything runs here or has data, says what it will do, and asks.
    """
    session: Session = context.obj
    with _deployment() as here:
        plan = here.plan(at=to, without_records=without_records)
        for line in plan.lines():
            session.screen.note(f"- {line}")
        if not yes:
            typer.confirm("Restore?", abort=True, err=True)
        found = here.restore(plan, session.screen.note)
    session.screen.answer(
        found,
        f"restored in {found['seconds']} s; {found['trail']['rows']} rows of the trail, "
        f"{found['ledger']['accepted']} of the ledger",
    )
    if not found["ok"]:
        raise Failure(Exit.NOT_OK, "the trail or the ledger is not whole: see --json")
