"""Forms: print the code of one for a page, compare a page with it, and look at suspected leads."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

from ostoja import form_page, snippets
from ostoja.commands import table
from ostoja.failure import Exit, Failure
from ostoja.where import Session


def add_to(app: typer.Typer) -> None:
    forms = typer.Typer(
        no_args_is_help=True, help="Lead forms, and leads that look like a robot's."
    )
    leads = typer.Typer(no_args_is_help=True, help="Leads and their states.")
    acts: dict[str, Any] = {"snippet": snippet, "check": check}
    table.add(app, "People", "forms", "leads", do=acts, leads=leads, forms=forms)


def snippet(session: Session, *, form: str, language: str, kind: str) -> None:
    described = _described(session, form, language)
    if described.get("challenge") and kind in {"fetch", "react"}:
        raise Failure(
            Exit.USAGE,
            f'{form} has proof = "on", which this code does not solve: use the widget or html',
        )
    typer.echo(snippets.AS[kind](described, session.api.url))


def check(session: Session, *, page: Path) -> None:
    try:
        found = form_page.forms_of(page.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"{page}: {error}") from None
    if not found:
        raise Failure(Exit.NOT_OK, f'{page}: no form has a field "form"')
    faults = []
    for each in found:
        name = each.value("form")
        described = _described(session, name, each.value("language") or "pl")
        faults += [
            {"form": name, "fault": fault}
            for fault in form_page.differences(each, described, session.api.url)
        ]
    if not session.screen.is_json({"ok": not faults, "faults": faults}):
        for fault in faults:
            session.screen.line(f"{fault['form']}: {fault['fault']}")
        if not faults:
            session.screen.line("the page is as forms.toml says")
    if faults:
        raise typer.Exit(Exit.NOT_OK)


def _described(session: Session, form: str, language: str) -> dict[str, Any]:
    path = f"/api/forms/{quote(form, safe='')}"
    described: dict[str, Any] = session.api.get(path, key=None, language=language)
    return described
