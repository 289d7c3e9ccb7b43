"""Checks of the whole deployment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from ostoja import where
from ostoja.failure import Exit, Failure
from ostoja.show import name, prose
from ostoja.where import Session

ELSEWHERE = (
    "run this where the deployment runs: in its checkout, or in the container that has its "
    "settings, as in `docker compose run --rm inspector doctor`"
)


def add_to(app: typer.Typer) -> None:
    app.command("doctor", rich_help_panel="Deployment")(doctor)
    app.command("check", rich_help_panel="Deployment")(check)


def check(context: typer.Context) -> None:
    """Check .env and config/*.toml before a restart: would every service start with them?

    It connects to no server and changes nothing.
    """
    session: Session = context.obj
    with checkout():
        from deploy.check import faults
        from deploy.up.environment import load

        found = faults(load(where.env_file()), where.env_file())
    for fault in found:
        session.screen.answer({"fault": fault}, fault)
    if found:
        raise Failure(Exit.NOT_OK, "correct this before you start or stop anything")
    session.screen.answer({"faults": 0}, "every service would start with them")


def doctor(
    context: typer.Context,
    *,
    mail: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(
            help="A follow-up as it arrived in a mailbox (.eml; - is standard input): checks that "
            "the relay's DKIM signature covers what one-click unsubscribe needs."
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Check a trial, too, for what is left to do before going live."
        ),
    ] = False,
) -> None:
    """Check a deployment, and say how to correct each problem.

    Run it where the deployment runs: it connects to the servers themselves.
    """
    with checkout():
        # Imported here, because the drivers of three servers load slowly and only this command
        # needs them.
        from deploy.up.environment import load, of_tls_servers, runs_three_hosts
        from ostoja.doctor.deployment import Deployment
        from ostoja.doctor.diagnosis import findings

        session: Session = context.obj
        values = load(where.env_file())
        if values["CERTS_DIR"] and runs_three_hosts(where.env_file().parent):
            values = of_tls_servers(values)
        deployment = Deployment(values, session.api.url, where.env_file())
        received = mail.read() if mail else None
        wrong = 0
        rows: list[tuple[str, str, str]] = []
        for finding in findings(deployment, session.api.admin_key, received, going_live=live):
            wrong += finding.status == "wrong"
            if session.screen.as_json:
                session.screen.json(asdict(finding))
            found = f"{finding.found}\n→ {finding.do}" if finding.do else finding.found
            rows.append((finding.part, finding.status, found))
    if not session.screen.as_json:
        rows.sort(key=lambda row: ("ok", "unknown", "wrong").index(row[1]))  # problems come last
        session.screen.table(
            [name("Part"), name("Result"), prose("Found, and how to correct it")], rows
        )
    if wrong:
        raise Failure(Exit.NOT_OK, f"{wrong} problems" if wrong > 1 else "1 problem")


@contextmanager
def checkout() -> Iterator[None]:
    """These two need servers and files; the rest of the tool needs only the gateway's API."""
    try:
        from deploy.up.process import ServerError
    except ImportError:
        raise Failure(Exit.USAGE, ELSEWHERE) from None
    if not where.env_file().is_file() and "POSTGRES_SUPERUSER_PASSWORD" not in os.environ:
        raise Failure(Exit.USAGE, ELSEWHERE)
    try:
        yield
    except ServerError as error:
        raise Failure(Exit.USAGE, str(error)) from None
