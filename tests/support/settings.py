"""The experts' table of docs/configuration.md; `python -m tests.support.settings` writes it."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deploy.up.environment import EXPERT, ROOT, SERVICES, parse

PAGE = ROOT / "docs" / "configuration.md"
BEGINS = "| setting | default | read by | meaning |"


class Setting(NamedTuple):
    name: str
    default: str
    read_by: tuple[str, ...]
    """Services; none: what starts them reads it."""
    meaning: str


def settings(file: Path) -> Iterator[Setting]:
    """Yield the settings of a file of defaults, each with the comment above it."""
    fields = {}
    for service in SERVICES:
        module = importlib.import_module(f"services.{service}.settings")
        fields[service] = getattr(module, f"{service.capitalize()}Settings").model_fields
    said: list[str] = []
    above: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith(("# --", "# ==")):
            above.append(line.strip("# "))
        elif line and not line.startswith("#"):
            said, above = above or said, []
            ((name, default),) = parse(line).items()
            readers = tuple(each for each in SERVICES if name.lower() in fields[each])
            yield Setting(name, default, readers, " ".join(said))
        else:
            said = above = []


def table() -> str:
    rows = [
        f"| `{each.name}` | {f'`{each.default}`' if each.default else ''} "
        f"| {', '.join(each.read_by)} | {each.meaning.replace('|', '/')} |"
        for each in settings(EXPERT)
    ]
    return "\n".join([BEGINS, "|---|---|---|---|", *rows])


if __name__ == "__main__":
    kept = PAGE.read_text(encoding="utf-8").partition(BEGINS)[0]
    PAGE.write_text(f"{kept}{table()}\n", encoding="utf-8")
