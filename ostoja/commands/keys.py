"""API keys of the company's programs: make, rotate, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from ostoja.commands import table
from ostoja.commands.lists import KEYS
from ostoja.failure import Exit, Failure
from ostoja.show import Screen
from ostoja.where import Session

Key = Annotated[str, typer.Argument(metavar="KEY", show_default=False, help="Its 10 letters.")]
PANEL = "People"


def add_to(app: typer.Typer) -> None:
    table.add(app, PANEL, KEYS)
    keys = app.registered_groups[-1].typer_instance
    assert keys is not None  # noqa: S101 - just made
    for title, command in (
        ("create", create),
        ("rotate", rotate),
        ("revoke", revoke),
        ("accept-restore", accept_restore),
    ):
        keys.command(title)(command)


def create(
    context: typer.Context,
    title: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    scopes: Annotated[
        list[str], typer.Option("--scope", help="Such as alerts:write; repeat it for more.")
    ],
    purpose: Annotated[str, typer.Option(help="What it is for, in a sentence.")],
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    days: Annotated[int, typer.Option(min=1, max=400, help="How long it works.")] = 365,
    limits: Annotated[
        list[str] | None, typer.Option("--limit", help="Such as '600 per minute'; two at most.")
    ] = None,
    networks: Annotated[
        list[str] | None, typer.Option("--network", help="Only from there, such as 10.0.0.0/8.")
    ] = None,
) -> None:
    """Make a key. It is shown once, and never again."""
    session: Session = context.obj
    body = {
        "name": title,
        "purpose": purpose,
        "owner": owner,
        "scopes": scopes,
        "expires_at": _in(days),
        "limits": limits or [],
        "networks": networks or [],
    }
    _secret(session.screen, *session.api.answer("POST", "/api/keys", body))


def rotate(
    context: typer.Context,
    key: Key,
    overlap: Annotated[
        int, typer.Option(min=0, max=720, help="Hours for which the old one works beside it.")
    ] = 24,
    days: Annotated[
        int | None, typer.Option(min=1, max=400, help="How long it works; else as before.")
    ] = None,
) -> None:
    """Make a new secret for a key. Its limits and its idempotency keys stay."""
    session: Session = context.obj
    body = {"overlap_hours": overlap, "expires_at": days and _in(days)}
    _secret(session.screen, *session.api.answer("POST", f"/api/keys/{key}/rotate", body))


def revoke(
    context: typer.Context,
    key: Key,
    reason: Annotated[str, typer.Option(help="For the record; name no person.")],
) -> None:
    """Revoke a key for good, and wait until no gateway accepts it."""
    session: Session = context.obj
    status, answer = session.api.answer("POST", f"/api/keys/{key}/revoke", {"reason": reason})
    session.screen.answer(answer, f"{key} is revoked on {answer['in_force_on']} gateway processes")
    if status == 202:
        raise Failure(Exit.NOT_OK, f"not confirmed yet by {_waiting(answer)}; repeat this command")


def accept_restore(
    context: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """After a restored backup: revoke again what was revoked since, and let people in again."""
    session: Session = context.obj
    path = "/api/keys/accept-restore"
    found = session.api.call("POST", path, {})
    if not session.screen.as_json:
        _print_lacking(session.screen, found)
    if not (yes or typer.confirm("accept this?", err=True)):
        raise Failure(Exit.NOT_OK, "nothing was changed")
    answer = session.api.call("POST", path, {"confirm": True})
    session.screen.answer(answer, f"accepted; {answer['in_force_on']} gateway processes have it")


def _print_lacking(screen: Screen, found: dict[str, Any]) -> None:
    revoked = ", ".join(found["revoked"]) or "no key"
    screen.line(f"revoked since the backup, and now again: {revoked}")
    screen.line(f"secrets made since the backup, which end now: {found['lost']}")
    people = ", ".join(f"{title} ({id_})" for id_, title in found["people"].items()) or "nobody"
    screen.line(f"changed since, and blocked until invited again: {people}")
    screen.line("everybody logs in again, and every invitation that was not used ends")
    if not found["reported"]:
        screen.note("no gateway has said which keys it has yet; wait a few seconds, or nothing")
        screen.note("is revoked again: then read `ostoja keys` afterwards, and revoke by hand")


def _in(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


def _secret(screen: Screen, status: int, answer: dict[str, Any]) -> None:
    """Print the secret alone to stdout, so that it can be piped to where it is kept."""
    screen.answer(answer, answer["key"])
    screen.note(f"key {answer['id']}: keep it now, it is not shown again")
    if status == 202:
        screen.note(f"not yet on {_waiting(answer)}: there it is refused for a moment")


def _waiting(answer: dict[str, Any]) -> str:
    return ", ".join(each["process"] for each in answer["waiting_for"])
