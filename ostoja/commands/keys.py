"""API keys of the company's programs: make, rotate, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Any

import typer

from ostoja.commands import table
from ostoja.failure import Exit, Failure
from ostoja.show import Screen
from ostoja.where import Session


def add_to(app: typer.Typer) -> None:
    acts: dict[str, Any] = {
        "create": create,
        "rotate": rotate,
        "revoke": revoke,
        "accept_restore": accept_restore,
    }
    table.add(app, "People", "keys", do=acts)


def create(
    session: Session,
    *,
    title: str,
    days: int,
    limits: list[str] | None,
    networks: list[str] | None,
    **given: Any,
) -> None:
    body = {"name": title, **given, "limits": limits or [], "networks": networks or []}
    body["expires_at"] = _in(days)
    _secret(session.screen, *session.api.answer("POST", "/api/keys", body))


def rotate(session: Session, *, key: str, overlap: int, days: int | None) -> None:
    body = {"overlap_hours": overlap, "expires_at": days and _in(days)}
    _secret(session.screen, *session.api.answer("POST", f"/api/keys/{key}/rotate", body))


def revoke(session: Session, *, key: str, reason: str) -> None:
    status, answer = session.api.answer("POST", f"/api/keys/{key}/revoke", {"reason": reason})
    session.screen.answer(answer, f"{key} is revoked on {answer['in_force_on']} gateway processes")
    if status == 202:
        raise Failure(Exit.NOT_OK, f"not confirmed yet by {_waiting(answer)}; repeat this command")


def accept_restore(session: Session, *, yes: bool) -> None:
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
