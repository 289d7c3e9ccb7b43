"""Silences: alerts that are not sent for a time, and asked about at its end."""

from typing import Annotated, Any

import typer

from ostoja.commands.oncall import until
from ostoja.show import count, moment, name, prose
from ostoja.where import Session


def add_to(app: typer.Typer) -> None:
    silence = typer.Typer(invoke_without_command=True)
    silence.callback()(show)
    silence.command("add")(add)
    silence.command("end")(end)
    app.add_typer(silence, name="silence", rich_help_panel="Cases")


def show(context: typer.Context) -> None:
    """List the silences, or make one: alerts that wait, and are asked about at its end."""
    if context.invoked_subcommand is not None:
        return
    session: Session = context.obj
    found: dict[str, Any] = session.api.get("/api/silences")
    if session.screen.is_json(found):
        return
    if not found["items"]:
        session.screen.line("none")
        return
    session.screen.table(
        [count("Silence"), *map(name, ("Alerts", "Ends")), prose("Why")],
        [
            (each["id"], _alerts(each), moment(each["ends"]), f"{each['by']}: {each['why']}")
            for each in found["items"]
        ],
    )


def _alerts(each: dict[str, Any]) -> str:
    given = [each[name] for name in ("severity", "source", "dedup_key") if each[name] is not None]
    return "\n".join([each["event_type"], *given])


def add(
    context: typer.Context,
    event_type: Annotated[str, typer.Argument(metavar="EVENT", show_default=False)],
    ends: Annotated[
        str, typer.Option("--until", parser=until, metavar="TIME", help="In 2h, or at a time.")
    ],
    why: Annotated[str, typer.Option(help="Shown beside the silence.")],
    severity: Annotated[str | None, typer.Option(help="Only of this severity.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    dedup_key: Annotated[str | None, typer.Option(help="Only with this key.")] = None,
) -> None:
    """Send no alerts of a kind until then; each is asked about when the silence ends."""
    session: Session = context.obj
    body = {
        "event_type": event_type,
        "severity": severity,
        "source": source,
        "dedup_key": dedup_key,
        "ends": ends,
        "why": why,
    }
    answer = session.api.call("POST", "/api/silences", body)
    session.screen.answer(answer, f"silence {answer['id']}: {event_type}")


def end(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="SILENCE", min=1, show_default=False)],
) -> None:
    """End a silence now: its cases are asked about at once."""
    session: Session = context.obj
    answer = session.api.call("DELETE", f"/api/silences/{number}")
    session.screen.answer(answer, f"silence {number} is over, {answer['cases']} cases are due")
