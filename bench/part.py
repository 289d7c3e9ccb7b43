"""A part of a benchmark, with its own file of figures and its own section."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.lab import Lab


@dataclass(frozen=True)
class Part:
    name: str
    run: Callable[[Lab], Any]
    """Measures; the result is stored as JSON."""
    render: Callable[[Any], str]
    """Turns that JSON into the section's Markdown, heading included."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Stored with the figures, as they may change before the next run; $name in the Markdown."""
    long: bool = False
    """Runs only with LONG=1 or by name."""
    needs: Sequence[str] = ()
    """Programs that this project does not install; the part is skipped without them."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
