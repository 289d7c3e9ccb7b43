"""The kinds of command in the tables of lists.py: a list, and an act on what is listed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from inspect import Parameter, Signature
from itertools import islice
from typing import Any
from urllib.parse import quote
from uuid import UUID

import typer
from rich.table import Column

from ostoja.show import moment
from ostoja.where import Session

Params = Mapping[str, Any]
"""Typer's annotation of each parameter; or a pair of it and the default."""
Value = str | Callable[[Any], Any]
"""A field of an item, or a function of the item."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class List:
    name: str
    """`leads list`; or one word, which its group's acts follow if `group` is set."""
    help: str
    path: str
    columns: Sequence[tuple[Column, Value]]
    params: Params = field(default_factory=dict)
    """Filters. With `limit` it is a list of pages, and --json prints an item a line."""
    key: str = "X-ADMIN-API-KEY"
    fixed: bool = False
    """Its pages have one size; see Api.pages."""
    group: bool = False
    empty: str = ""
    """Printed in place of a table without rows."""
    items: Callable[[Any], Iterable[Any]] = lambda found: found["items"]
    then: Callable[[Session, Any], None] = lambda _, __: None
    """Prints what follows the table; gets the answer, or the last page."""

    def run(self, session: Session, given: dict[str, Any]) -> None:
        if "limit" not in given:
            self.show(session, session.api.get(self.path, key=self.key, **given))
            return
        limit: int = given["limit"]
        last: dict[str, Any] = {}

        def items() -> Iterable[Any]:
            for page in session.api.pages(self.path, key=self.key, fixed=self.fixed, **given):
                last.update(page)
                yield from page["items"]

        found = list(islice(items(), limit))
        if session.screen.as_json:
            for each in found:
                session.screen.json(each)
        else:
            self.show(session, {**last, "items": found, "limit": limit})

    def show(self, session: Session, found: Any) -> None:
        if session.screen.is_json(found):
            return
        rows = [
            [value(each) if callable(value) else each[value] for _, value in self.columns]
            for each in self.items(found)
        ]
        if rows or not self.empty:
            session.screen.table([column for column, _ in self.columns], rows)
        else:
            session.screen.line(self.empty)
        self.then(session, found)


@dataclass(frozen=True)
class Act:
    name: str
    help: str
    call: str
    """Method and path, which may contain parameters; the others are the body."""
    says: str | List | Callable[[Any], str]
    """The line, of the answer and the parameters; or the list that the answer is."""
    params: Params = field(default_factory=dict)
    key: str = "X-ADMIN-API-KEY"
    headers: Callable[[], Mapping[str, str]] = dict
    body: Callable[[dict[str, Any]], Any] = lambda given: given or None

    def run(self, session: Session, given: dict[str, Any]) -> None:
        method, path = self.call.split()
        names = re.findall(r"{(\w+)}", path)
        path = path.format(**{name: quote(str(given[name]), safe="") for name in names})
        sent = {
            name: str(value) if isinstance(value, UUID) else value
            for name, value in given.items()
            if value is not None and name not in names
        }
        body = self.body(sent)
        answer = session.api.call(method, path, body, key=self.key, headers=self.headers())
        if isinstance(self.says, List):
            self.says.show(session, answer)
        else:
            says, found = self.says, {**given, **answer}
            session.screen.answer(answer, says(found) if callable(says) else says.format(**found))


@dataclass(frozen=True)
class Do:
    """An act that is more than a call."""

    name: str
    help: str
    params: Params
    do: Callable[..., None]

    def run(self, session: Session, given: dict[str, Any]) -> None:
        self.do(session, **given)


Row = List | Act | Do


def add(app: typer.Typer, panel: str, *rows: Row, **groups: typer.Typer) -> None:
    """:param groups: of `leads list` and the like; a list with `group` makes its own"""
    made = dict(groups)
    for name, group in groups.items():
        group.callback()(lambda: None)  # otherwise Typer drops the name of an only command
        app.add_typer(group, name=name, rich_help_panel=panel)
    for row in rows:
        first, _, second = row.name.partition(" ")
        if isinstance(row, List) and row.group:
            made[first] = group = typer.Typer(invoke_without_command=True)
            group.callback()(_command(row))
            app.add_typer(group, name=first, rich_help_panel=panel)
        elif second:
            made[first].command(second)(_command(row))
        else:
            app.command(first, rich_help_panel=panel)(_command(row))


def _command(row: Row) -> Callable[..., None]:
    def command(context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is None:
            row.run(context.obj, given)

    pairs = {name: each if isinstance(each, tuple) else (each, Parameter.empty)
             for name, each in row.params.items()}  # fmt: skip
    vars(command)["__signature__"] = Signature(  # which Typer reads
        [
            Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(
                Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)
                for name, (kind, default) in pairs.items()
            ),
        ]
    )
    command.__doc__ = row.help
    return command


def when(name: str) -> Callable[[Any], str | None]:
    return lambda item: moment(item[name])


def ago(given: str) -> str:
    """Read `2h` as two hours ago, else an ISO 8601 time, local unless it has an offset."""
    return _time(given, -1, "2h, 30m, 1d (ago), or 2026-11-25T23:00")


def until(given: str) -> str:
    """Read `2h` as in two hours, else as `ago` does."""
    return _time(given, 1, "30m, 2h, 1d (from now), or 2026-11-26T09:00")


def _time(given: str, sign: int, wanted: str) -> str:
    try:
        if found := re.fullmatch(r"(\d{1,6})([smhd])", given):
            span = timedelta(**{_UNITS[found[2]]: int(found[1])})
            return (datetime.now(UTC) + sign * span).isoformat()
        return datetime.fromisoformat(given).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter(wanted) from None
