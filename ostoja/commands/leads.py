"""Leads: list them, and set the state of one."""

from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from ostoja.show import count, moment, name, prose
from ostoja.where import Session

KEY = "X-API-KEY"


State = Literal["new", "taken", "won", "lost", "not_a_lead"]


def add_to(app: typer.Typer) -> None:
    leads = typer.Typer(no_args_is_help=True, help="Leads and their states.")
    leads.command("list")(list_)
    leads.command("set")(set_)
    app.add_typer(leads, name="leads", rich_help_panel="People")


def list_(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    topic: Annotated[str | None, typer.Option(help="lead, complaint, …")] = None,
    since: Annotated[str | None, typer.Option(help="ISO 8601, with an offset.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
) -> None:
    """List leads and other requests, newest first. Needs the service key."""
    session: Session = context.obj
    wanted = {"state": state, "topic": topic, "since": since}
    pages = session.api.pages("/api/leads", limit=limit, key=KEY, **wanted)
    found = [each for page in pages for each in page["items"]]
    if session.screen.as_json:
        for each in found:
            session.screen.json(each)
        return
    session.screen.table(
        [name("Id"), *map(name, ("Since", "State")), count("Score"), prose("Contact and request")],
        [
            (each["id"], moment(each["created_at"]), each["state"], each["score"], _about(each))
            for each in found
        ],
    )


def _about(lead: dict[str, Any]) -> str:
    topic = [] if lead["topic"] == "lead" else [lead["topic"]]
    who = lead["name"] or lead["phone"] or lead["email"] or "unknown"
    return ", ".join([*topic, who, *filter(None, (lead["city"], lead["wish"]))])


def set_(
    context: typer.Context,
    lead: Annotated[str, typer.Argument(help="The lead's id.")],
    state: Annotated[State, typer.Argument()],
    reason: Annotated[str | None, typer.Option(help="Stored with the lead.")] = None,
) -> None:
    """Set a lead's state; every state but new stops its follow-ups."""
    session: Session = context.obj
    body = {"state": state} | ({"reason": reason} if reason else {})
    path = f"/api/leads/{quote(lead, safe='')}/state"
    answer = session.api.call("POST", path, body, key=KEY)
    session.screen.answer(answer, f"{answer['id']} is {answer['state']}")
