"""The circuit breaker of each target."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from ostoja.show import Screen, count, moment, name
from ostoja.where import Session


def add_to(app: typer.Typer) -> None:
    breakers = typer.Typer(invoke_without_command=True)
    breakers.callback()(show)
    breakers.command("reset")(reset)
    app.add_typer(breakers, name="breakers", rich_help_panel="Targets and traffic")


def show(context: typer.Context) -> None:
    """Show the circuit breaker of each target, or reset one."""
    if context.invoked_subcommand is None:
        session: Session = context.obj
        _print(session.screen, session.api.get("/api/breakers"))


def reset(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="As `ostoja breakers` shows it.")],
) -> None:
    """Close a breaker manually: alerts that wait for the target are tried at once."""
    session: Session = context.obj
    path = f"/api/breakers/{quote(target, safe='')}/reset"
    _print(session.screen, session.api.call("POST", path))


def _print(screen: Screen, found: dict[str, Any]) -> None:
    if screen.is_json(found):
        return
    screen.table(
        [
            *map(name, ("Target", "Breaker")), count("Failures"),
            *map(name, ("Unhealthy since", "Next trial", "Paused")), count("Processes"),
        ],
        [
            (
                target,
                each["state"],
                each["failures"],
                moment(each.get("open_since")),
                moment(each["next_trial_at"]),
                "yes" if each.get("paused") is True else each.get("paused") or None,
                each.get("processes"),
            )
            for target, each in sorted(found.items())
        ],
    )  # fmt: skip
