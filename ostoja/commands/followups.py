"""Stops the follow-ups of a lead."""

from typing import Annotated, Literal
from uuid import UUID

import typer

from ostoja.failure import Exit, Failure
from ostoja.where import Session


def add_to(app: typer.Typer) -> None:
    followups = typer.Typer(no_args_is_help=True, help="Messages to a lead.")
    followups.callback()(lambda: None)  # otherwise Typer drops the name of an only command
    followups.command("stop")(stop)
    app.add_typer(followups, name="followups", rich_help_panel="People")


def stop(
    context: typer.Context,
    reason: Annotated[
        Literal["reply", "staff", "bounce"],
        typer.Option(
            help="reply: they answered elsewhere; staff: a colleague took over; "
            "bounce: the address accepts no mail."
        ),
    ],
    email: Annotated[str | None, typer.Argument(show_default=False)] = None,
    conversation: Annotated[
        UUID | None, typer.Option(help="The conversation, instead of the address.")
    ] = None,
) -> None:
    """Stop the follow-ups to an address in all conversations. Needs the service key."""
    session: Session = context.obj
    if (email is None) == (conversation is None):
        raise Failure(Exit.USAGE, "name either an address or --conversation")
    whom = {"email": email} if email else {"conversation_id": str(conversation)}
    body = {**whom, "reason": reason}
    answer = session.api.call("POST", "/api/followups/stop", body, key="X-API-KEY")
    session.screen.answer(answer, f"cancelled {answer['cancelled']:,}")
