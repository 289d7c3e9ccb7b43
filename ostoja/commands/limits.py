"""The gateway's rate limits and caches."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from ostoja.show import Screen, name, prose
from ostoja.where import Session

PANEL = "Targets and traffic"
WHOM = {
    "chat": "chat, per client",
    "minute": "everything else, per client",
    "hour": "everything else, per client",
    "service": "all calls with one key",
    "chat_budget": "chat, all clients",
    "write_budget": "opt-ins, all clients",
    "withdrawal_budget": "withdrawals, all clients",
}


class Name(StrEnum):
    CHAT = "chat"
    MINUTE = "minute"
    HOUR = "hour"
    CHAT_BUDGET = "chat_budget"
    WRITE_BUDGET = "write_budget"
    WITHDRAWAL_BUDGET = "withdrawal_budget"


def add_to(app: typer.Typer) -> None:
    limits = typer.Typer(invoke_without_command=True)
    limits.callback()(show)
    limits.command("set")(set_)
    limits.command("clear")(clear)
    app.add_typer(limits, name="limits", rich_help_panel=PANEL)
    cache = typer.Typer(no_args_is_help=True, help="The gateway's caches.")
    cache.callback()(lambda: None)  # otherwise Typer drops the name of an only command
    cache.command("purge")(purge)
    app.add_typer(cache, name="cache", rich_help_panel=PANEL)


def show(context: typer.Context) -> None:
    """Show the rate limits in force, or change them."""
    if context.invoked_subcommand is None:
        session: Session = context.obj
        _print(session.screen, session.api.get("/api/ratelimits"))


def set_(
    context: typer.Context,
    limit_name: Annotated[
        Name, typer.Argument(metavar="NAME", help="As `ostoja limits` shows it.")
    ],
    limit: Annotated[list[str], typer.Argument(metavar="LIMIT", help="For example 60 per minute.")],
) -> None:
    """Change a limit on all gateways within seconds, until it is cleared."""
    session: Session = context.obj
    answer = session.api.call("PUT", "/api/ratelimits", {limit_name.value: " ".join(limit)})
    _print(session.screen, answer)


def clear(
    context: typer.Context,
    limit_names: Annotated[
        list[Name], typer.Argument(metavar="NAME...", help="As `ostoja limits` shows them.")
    ],
) -> None:
    """Restore the configured limit."""
    session: Session = context.obj
    changes = dict.fromkeys(each.value for each in limit_names)
    _print(session.screen, session.api.call("PUT", "/api/ratelimits", changes))


def _print(screen: Screen, found: dict[str, Any]) -> None:
    if screen.is_json(found):
        return
    screen.table(
        [name("Limit"), name("In force"), name("From"), prose("Applies to")],
        [(each, found[each], found["sources"][each], whom) for each, whom in WHOM.items()],
    )
    if found["mode"] == "shadow":
        screen.note("RATE_LIMIT_MODE=shadow: requests are counted but never refused")


def purge(context: typer.Context) -> None:
    """Remove expired entries from the local cache of the gateway process that answers."""
    session: Session = context.obj
    answer = session.api.call("POST", "/api/cache/cleanup")
    session.screen.answer(answer, f"removed {answer['purged']:,}")
