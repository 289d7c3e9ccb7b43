"""A part of a benchmark: measured by itself, its figures in a file and a section of its own."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.lab import Lab


@dataclass(frozen=True)
class Part:
    name: str
    run: Callable[[Lab], Any]
    """Measure; what it returns is kept as JSON."""
    render: Callable[[Any], str]
    """Turn that JSON into the section's Markdown, heading included."""
    long: bool = False
    """Only when asked for, by LONG=1 or by its name."""
    needs: Sequence[str] = ()
    """Programs that this project does not install; without one of them the part is left out."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
