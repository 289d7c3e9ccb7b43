"""The chat in a terminal, to try the configuration: chips are tapped by their number."""

from typing import Any

import typer

from ostoja.commands import table
from ostoja.failure import Failure
from ostoja.where import Session

PATH = "/api/chatbot/chat"


def add_to(app: typer.Typer) -> None:
    table.add(app, "People", "talk", do={"chat": chat})


def chat(session: Session, *, language: str) -> None:
    about: dict[str, Any] = {"language": language, "greeted": True}
    told = session.api.get(PATH, key=None, language=language)
    while True:
        taps = _taps(told)
        typer.echo(told["reply"])
        typer.echo("   " + "  ".join(f"/{n} {label}" for n, (label, _) in enumerate(taps, 1)))
        try:
            said = input("> ").strip()
        except EOFError:
            return
        if not said:
            continue
        try:
            told = session.api.call("POST", PATH, about | _meant(said, taps), key=None)
        except Failure as failure:
            typer.echo(str(failure), err=True)
            continue
        about["session_id"] = told["session_id"]


def _meant(said: str, taps: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    number = int(said[1:]) if said.startswith("/") and said[1:].isdecimal() else 0
    return {"tap": taps[number - 1][1]} if 0 < number <= len(taps) else {"message": said}


def _taps(told: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return what stands on each chip and fact of the card, and its tap."""
    ask: dict[str, Any] = told["ask"] or {"choices": [], "skippable": False}
    skip = [{"id": "skip", "label": "skip"}] if ask["skippable"] else []
    wording = {"wording": ask["wording"]["sha256"]} if "wording" in ask else {}
    return [
        (each["label"], {"ask": ask["id"], "choice": each["id"], **wording})
        for each in ask["choices"] + skip
    ] + [
        (f"change: {fact['text']}", {"ask": "card", "choice": fact["name"]})
        for fact in told.get("card", ())
    ]
