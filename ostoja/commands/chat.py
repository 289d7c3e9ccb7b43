"""The chat in a terminal, to try the configuration: chips are tapped by their number."""

from typing import Annotated, Any, Literal

import typer

from ostoja.failure import Failure
from ostoja.where import Session

PATH = "/api/chatbot/chat"


def add_to(app: typer.Typer) -> None:
    app.command("chat", rich_help_panel="People")(chat)


def chat(
    context: typer.Context,
    language: Annotated[Literal["pl", "en"], typer.Option()] = "pl",
) -> None:
    """Talk to the chat as a visitor does: staff get what you leave there.

    `/2` taps the second chip, `/skip` skips, `/area` changes a fact of the card, and `=45` answers
    with a value. Anything else is a message. End with Ctrl-D.
    """
    session: Session = context.obj
    about: dict[str, Any] = {"language": language}
    told = session.api.get(PATH, key=None, language=language)
    while True:
        _show(told)
        try:
            said = input("> ").strip()
        except EOFError:
            return
        if not said:
            continue
        try:
            told = session.api.call("POST", PATH, about | _meant(said, told), key=None)
        except Failure as failure:
            typer.echo(str(failure), err=True)
            continue
        about["session_id"] = told["session_id"]


def _meant(said: str, told: dict[str, Any]) -> dict[str, Any]:
    ask, given = told["ask"] or {"id": "none", "kind": "", "choices": []}, said[1:].strip()
    if said.startswith("="):
        is_number = ask["kind"] == "number" and given.isdecimal()
        return {"tap": {"ask": ask["id"], "value": int(given) if is_number else given}}
    if not said.startswith("/"):
        return {"message": said}
    tap = {"ask": ask["id"], "choice": given}
    if given.isdecimal() and 0 < int(given) <= len(ask["choices"]):
        tap["choice"] = ask["choices"][int(given) - 1]["id"]
    elif given in {fact["name"] for fact in told.get("card", ())}:
        tap["ask"] = "card"
    if "wording" in ask:
        tap["wording"] = ask["wording"]["sha256"]
    return {"tap": tap}


def _show(told: dict[str, Any]) -> None:
    typer.echo(told["reply"])
    if card := told.get("card"):
        typer.echo("   " + " · ".join(f"{fact['text']} (/{fact['name']})" for fact in card))
    if ask := told["ask"]:
        chips = [f"/{number} {each['label']}" for number, each in enumerate(ask["choices"], 1)]
        typer.echo("   " + "  ".join([*chips, *(["/skip"] if ask["skippable"] else [])]))
