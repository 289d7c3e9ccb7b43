"""The whole deployment looked over at once."""

from dataclasses import asdict
from typing import Annotated

import typer

from ostoja import where
from ostoja.failure import Exit, Failure
from ostoja.show import name, prose
from ostoja.where import Session


def add_to(app: typer.Typer) -> None:
    app.command("doctor", rich_help_panel="Deployment")(doctor)


def doctor(
    context: typer.Context,
    mail: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(
            help="A follow-up as it arrived in a mailbox (.eml; - is standard input): does the "
            "relay's DKIM signature cover what one-click unsubscribe needs?"
        ),
    ] = None,
) -> None:
    """Look a deployment over, and say what to do for each thing that is wrong.

    Run it where the deployment runs: it speaks to the servers themselves.
    """
    # Not above: the drivers of three servers take a while to load, and only this needs them.
    from ostoja.doctor.deployment import Deployment
    from ostoja.doctor.diagnosis import findings

    session: Session = context.obj
    deployment = Deployment(session.values, session.api.url, where.env_file())
    received = mail.read() if mail else None
    wrong = 0
    rows: list[tuple[str, str, str]] = []
    for finding in findings(deployment, session.api.admin_key, received):
        wrong += finding.verdict == "wrong"
        if session.screen.as_json:
            session.screen.json(asdict(finding))
        found = f"{finding.found}\n→ {finding.do}" if finding.do else finding.found
        rows.append((finding.part, finding.verdict, found))
    if not session.screen.as_json:
        session.screen.table([name("Part"), name("Is"), prose("Found, and what to do")], rows)
    if wrong:
        raise Failure(Exit.NOT_OK, f"{wrong} findings" if wrong > 1 else "1 finding")
