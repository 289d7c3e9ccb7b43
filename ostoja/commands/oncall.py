"""Who is on call, and who stands in for whom."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from ostoja.show import count, moment, name, prose
from ostoja.where import Session


def add_to(app: typer.Typer) -> None:
    oncall = typer.Typer(invoke_without_command=True)
    oncall.callback()(show)
    oncall.command("override")(override)
    oncall.command("remove")(remove)
    app.add_typer(oncall, name="oncall", rich_help_panel="People")


def until(given: str) -> str:
    """Read `2h` as in two hours, else an ISO 8601 time, local unless it has an offset."""
    if found := re.fullmatch(r"(\d{1,4})([mhd])", given):
        unit = {"m": "minutes", "h": "hours", "d": "days"}[found[2]]
        return (datetime.now(UTC) + timedelta(**{unit: int(found[1])})).isoformat()
    try:
        return datetime.fromisoformat(given).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter("30m, 2h, 1d (from now), or 2026-11-26T09:00") from None


def show(context: typer.Context) -> None:
    """Show who is on call in each schedule, or put another person on call for a time."""
    if context.invoked_subcommand is not None:
        return
    session: Session = context.obj
    found: dict[str, Any] = session.api.get("/api/oncall")
    if session.screen.is_json(found):
        return
    session.screen.table(
        [*map(name, ("Schedule", "On call", "By", "Until")), prose("Fault")],
        [
            (schedule, each["name"], each["rule"], moment(each["until"]), each["fault"])
            for schedule, each in sorted(found["schedules"].items())
        ],
    )
    if found["overrides"]:
        session.screen.table(
            [count("Override"), *map(name, ("Schedule", "Person", "Begins", "Ends")), prose("Why")],
            [
                (
                    each["id"],
                    each["schedule"],
                    each["person"],
                    moment(each["begins"]),
                    moment(each["ends"]),
                    ": ".join(filter(None, (each["by"], each["why"]))),
                )
                for each in found["overrides"]
            ],
        )


def override(
    context: typer.Context,
    schedule: Annotated[str, typer.Argument(show_default=False)],
    person: Annotated[
        str, typer.Argument(show_default=False, help="A key of [people] in alerts.toml.")
    ],
    ends: Annotated[
        str, typer.Option("--until", parser=until, metavar="TIME", help="In 2h, or at a time.")
    ],
    begins: Annotated[
        str | None,
        typer.Option("--from", parser=until, metavar="TIME", help="In 2h, or at a time; else now."),
    ] = None,
    why: Annotated[str | None, typer.Option(help="Shown beside the override.")] = None,
) -> None:
    """Put a person on call for a time, whatever the schedule's file says."""
    session: Session = context.obj
    body = {"schedule": schedule, "person": person, "begins": begins, "ends": ends, "why": why}
    answer = session.api.call("POST", "/api/oncall/overrides", body)
    session.screen.answer(answer, f"override {answer['id']}: {person} is on call for {schedule}")


def remove(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="OVERRIDE", min=1, show_default=False)],
) -> None:
    """Remove an override: the schedule's file counts again."""
    session: Session = context.obj
    answer = session.api.call("DELETE", f"/api/oncall/overrides/{number}")
    session.screen.answer(answer, f"override {number} is removed")
