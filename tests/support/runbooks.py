"""The commands of docs/runbooks and the examples of docs/clients.md, as the page has them.

A fence marked `sh run` is run by bash; `sh run make` only where `make up` has started the system,
`sh run compose` only where `docker compose` has. A `text` fence right behind it is what it must
print, `…` standing for anything. What stands before the first heading of level two is run before
the commands of each.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from deploy.up.environment import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
CLIENTS = ROOT / "docs" / "clients.md"
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    """Of the page, where its commands begin."""
    way: str | None
    """Of starting the system, when it is for one only: make, compose."""
    commands: str
    expected: str | None

    def __str__(self) -> str:
        return f"docs/runbooks/{self.page}.md:{self.line}"


def examples(page: Path) -> dict[str, str]:
    """Return what stands in a page's fences by what is written behind the backticks, once each."""
    found = [(one["info"], one["body"]) for one in _FENCE.finditer(page.read_text("utf-8"))]
    assert len(dict(found)) == len(found), "two fences of one name"
    return dict(found)


def sections(page: Path) -> dict[str, list[Block]]:
    """Return a page's commands by heading; the empty one holds those before the first."""
    text = page.read_text(encoding="utf-8")
    headings = [(0, ""), *((found.start(), found[1]) for found in _HEADING.finditer(text))]
    fences = list(_FENCE.finditer(text))
    found: dict[str, list[Block]] = {name: [] for _, name in headings}
    for fence, behind in zip(fences, [*fences[1:], None], strict=True):
        way: str | None
        match fence["info"].split():
            case ["sh", "run"]:
                way = None
            case ["sh", "run", "make" | "compose" as way]:
                pass
            case _:
                continue
        answers = (
            behind is not None
            and behind["info"].strip() == "text"
            and not text[fence.end() : behind.start()].strip()
        )
        line = text.count("\n", 0, fence.start("body")) + 1
        expected = behind["body"] if behind is not None and answers else None
        name = max(heading for heading in headings if heading[0] <= fence.start())[1]
        found[name].append(Block(page.stem, line, way, fence["body"], expected))
    return found


def answers(printed: str, expected: str) -> bool:
    """Compare word by word: a page breaks its lines where it likes."""
    parts = (" ".join(part.split()) for part in expected.split("…"))
    pattern = r"\s*.*?\s*".join(re.escape(part) for part in parts)
    return re.fullmatch(pattern, " ".join(printed.split()), re.DOTALL) is not None
