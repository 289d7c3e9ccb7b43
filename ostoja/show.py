"""Output: tables for people, JSON for scripts, never both."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

_STYLES = {
    "open": "red", "half_open": "yellow", "closed": "green", "ok": "green", "wrong": "red",
    "unknown": "yellow",
}  # fmt: skip


# JSON escapes ASCII control characters. A terminal also obeys these, or reorders text by them.
_CONTROLS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def name(title: str) -> Column:
    """A column that users copy into other commands, so it must not be cut."""
    return Column(title, no_wrap=True, overflow="fold")


def count(title: str) -> Column:
    return Column(title, justify="right", no_wrap=True)


def prose(title: str) -> Column:
    return Column(title, overflow="fold")


def json_line(answer: Any) -> str:
    text = json.dumps(answer, ensure_ascii=False, default=str)
    return _CONTROLS.sub(lambda one: f"\\u{ord(one[0]):04x}", text)


class Screen:
    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # Print data as they are: no markup, and no highlighting of numbers or paths.
        self._out = Console(markup=False, highlight=False, emoji=False)
        self._err = Console(stderr=True, markup=False, highlight=False, emoji=False)

    def json(self, answer: Any) -> None:
        """Print one answer, or one item of a list, on one line."""
        sys.stdout.write(json_line(answer) + "\n")

    def is_json(self, answer: Any) -> bool:
        """Print the answer as JSON and return True with --json; else return False."""
        if self.as_json:
            self.json(answer)
        return self.as_json

    def answer(self, answer: Any, line: str) -> None:
        """Print the answer as JSON with --json, else this line."""
        if not self.is_json(answer):
            self.line(line)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
        # A table keeps its cells in its columns, and ours are constants.
        table = Table(
            *(each.copy() for each in columns), box=SIMPLE_HEAD, show_edge=False, pad_edge=False
        )
        for row in rows:
            table.add_row(*map(text, row))
        self._out.print(table)

    def line(self, line: str, style: str = "") -> None:
        self._out.print(text(line), style=style or None, soft_wrap=False)

    def note(self, line: str) -> None:
        """Print a note to stderr; it is not part of the answer."""
        self._err.print(text(line), style="dim")


def text(value: Any) -> Text:
    """Strip control characters: text from targets and visitors must not control the terminal."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, int) and not isinstance(value, bool):
        return Text(f"{value:,}", style="" if value else "dim")
    lines = str(value).split("\n")
    shown = "\n".join("".join(c if c.isprintable() else " " for c in line) for line in lines)
    return Text(shown, style=_STYLES.get(shown, ""))


def moment(at: str | None, now: datetime | None = None) -> str | None:
    """Format a time in local time, with its distance from now."""
    if at is None:
        return None
    then = datetime.fromisoformat(at).astimezone()
    now = (now or datetime.now(UTC)).astimezone(then.tzinfo)
    # Two narrow lines, or the id beside it would not fit into 80 columns.
    clock = f"{then:%H:%M:%S}" if then.date() == now.date() else f"{then:%d %b}\n{then:%H:%M}"
    seconds = (now - then).total_seconds()
    return f"{clock}\n{span(seconds)} ago" if seconds >= 0 else f"{clock}\nin {span(-seconds)}"


def span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
