"""People who may enter the console, and the record of who did what."""

from typing import Annotated, Any

import typer

from ostoja.show import moment, name, prose
from ostoja.where import Session

PANEL = "People"
Person = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
Show = Annotated[
    bool,
    typer.Option("--show-link", help="Print it instead of mailing it; every admin is told."),
]
Roles = Annotated[
    list[str], typer.Option("--role", help="viewer, sales, ops, privacy or admin; repeat for more.")
]


def add_to(app: typer.Typer) -> None:
    staff = typer.Typer(invoke_without_command=True)
    staff.callback()(show)
    for title, command in (
        ("invite", invite),
        ("invite-again", invite_again),
        ("roles", roles),
        ("reset-factor", reset_factor),
        ("disable", disable),
    ):
        staff.command(title)(command)
    app.add_typer(staff, name="staff", rich_help_panel=PANEL)
    app.command("actions", rich_help_panel=PANEL)(actions)


def show(context: typer.Context) -> None:
    """List who may enter the console, or invite, change and disable people."""
    if context.invoked_subcommand is not None:
        return
    session: Session = context.obj
    found: dict[str, Any] = session.api.get("/api/staff")
    if session.screen.is_json(found):
        return
    session.screen.table(
        [name("Person"), prose("Name"), prose("E-mail"), prose("Roles"), name("State")],
        [
            (each["id"], each["name"], each["email"], ", ".join(each["roles"]), _state(each))
            for each in found["items"]
        ],
    )


def _state(each: dict[str, Any]) -> str:
    if each["disabled"]:
        return "disabled"
    return "joined" if each["joined"] else "invited"


def invite(
    context: typer.Context,
    email: Annotated[str, typer.Argument(metavar="EMAIL", show_default=False)],
    role: Roles,
    title: Annotated[str, typer.Option("--name", help="As colleagues know them.")],
    language: Annotated[str, typer.Option(help="pl or en.")] = "pl",
    *,
    show: Show = False,
) -> None:
    """Mail a person a link with which they set a password; valid once, for 24 hours."""
    body = {"email": email, "name": title, "roles": role, "language": language}
    _invite(context, "/api/staff", body, show=show)


def invite_again(context: typer.Context, person: Person, *, show: Show = False) -> None:
    """Mail a person a new link, for a lost link or password; the one before ends."""
    _invite(context, f"/api/staff/{person}/invitation", {}, show=show)


def _invite(context: typer.Context, path: str, body: dict[str, Any], *, show: bool) -> None:
    session: Session = context.obj
    answer = session.api.call("POST", path, body | ({"show_link": True} if show else {}))
    session.screen.answer(answer, answer["link"] or "The link was mailed to the person.")


def reset_factor(context: typer.Context, person: Person) -> None:
    """Remove the second factor of a person who has lost it; they and every admin are told."""
    session: Session = context.obj
    answer = session.api.call("POST", f"/api/staff/{person}/reset-factor", {})
    session.screen.answer(answer, f"{person} has no second factor now")


def roles(context: typer.Context, person: Person, role: Roles) -> None:
    """Give a person these roles instead of theirs, from their next request on."""
    session: Session = context.obj
    answer = session.api.call("POST", f"/api/staff/{person}/roles", {"roles": role})
    session.screen.answer(answer, f"{person} has {', '.join(answer['roles'])}")


def disable(
    context: typer.Context,
    person: Person,
    reason: Annotated[str, typer.Option(help="For the record; name no person.")],
) -> None:
    """Disable a person; their sessions end now."""
    session: Session = context.obj
    answer = session.api.call("POST", f"/api/staff/{person}/disable", {"reason": reason})
    session.screen.answer(answer, f"{person} is disabled")


def actions(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    who: Annotated[str | None, typer.Option(help="The id of a person or a key.")] = None,
    act: Annotated[str | None, typer.Option(help="Such as alert.discard.")] = None,
    day: Annotated[str | None, typer.Option(help="Such as 2026-11-27.")] = None,
) -> None:
    """Show who did what: with alerts, leads, persons' data, limits, keys and people."""
    session: Session = context.obj
    pages = session.api.pages("/api/actions", limit=limit, actor=who, action=act, day=day)
    found = [each for page in pages for each in page["items"]][:limit]
    if session.screen.as_json:
        for each in found:
            session.screen.json(each)
        return
    session.screen.table(
        [name("When"), prose("Who"), name("Act"), name("On"), prose("Why")],
        [
            (
                moment(each["at"]),
                _who(each),
                each["action"],
                each["object_ref"],
                each["reason"] or "",
            )
            for each in found
        ],
    )


def _who(act: dict[str, Any]) -> str:
    who = act["actor_name"] or act["actor_id"]
    return who if act["actor_kind"] == "staff" else f"{who} ({act['actor_id']})"
