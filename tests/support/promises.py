"""Writes docs/promises.md's tables, from the markers: `python -m tests.support.promises`.

The words of each promise are written in that page, by hand, and stay.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from deploy.up.environment import ROOT

PAGE = ROOT / "docs" / "promises.md"


def _marks(node: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name the marks below a node, each with its arguments."""
    for each in ast.walk(node):
        match each:
            case ast.Attribute(value=ast.Attribute(attr="mark"), attr=name):
                yield name, ()
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="mark"), attr=name)):
                given = (str(one.value) for one in each.args if isinstance(one, ast.Constant))
                yield name, tuple(given)


class Marked:
    """A test function with its module's marks and its own."""

    def __init__(self, file: Path, name: str, marks: list[tuple[str, tuple[str, ...]]]) -> None:
        self.file, self.name = file, name
        self.promises = {each for mark, given in marks if mark == "promise" for each in given}
        self.controls = {each for mark, given in marks if mark == "control" for each in given}
        self.quick = "unit" in file.parts or any(mark == "quick" for mark, _ in marks)

    @property
    def level(self) -> str:
        return self.file.parts[1]


@cache
def tests() -> list[Marked]:
    return list(_tests())


def _tests() -> Iterator[Marked]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree, file = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT)
        shared = [
            mark
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
            for mark in _marks(node.value)
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:4] == "test":
                own = [mark for decorator in node.decorator_list for mark in _marks(decorator)]
                yield Marked(file, node.name, shared + own)


def words() -> dict[str, str]:
    """Give what the page says by hand: its head under "", and each promise's words, in order."""
    head, *rest = PAGE.read_text(encoding="utf-8").split("\n## ")
    assert rest, "the page is empty: `git checkout docs/promises.md`; this writes it without a >"
    parts = (each.partition("\n") for each in rest)
    return {"": head} | {name: text.split("| level |")[0].strip() for name, _, text in parts}


def promises() -> list[str]:
    return [name for name in words() if name]


def page() -> str:
    found, said = tests(), words()
    lines = [said[""]]
    for promise in promises():
        lines += [f"## {promise}", "", said[promise], "", "| level | tests |", "|---|---|"]
        proofs = [each for each in found if promise in each.promises - each.controls]
        for level in sorted({each.level for each in proofs}):
            of_level = [each for each in proofs if each.level == level]
            files = dict.fromkeys(each.file for each in of_level)
            lines.append(f"| {level} | {', '.join(_cell(file, of_level) for file in files)} |")
        controls = [f"`{each.name}`" for each in found if promise in each.controls]
        lines += [f"| control | {', '.join(controls) or 'none that runs'} |", ""]
    return "\n".join(lines)


def _cell(file: Path, found: list[Marked]) -> str:
    here = [each for each in found if each.file == file]
    name = "/".join(file.parts[2:]).removesuffix(".py").replace("test_", "")
    bold = "**" if any(each.quick for each in here) else ""
    return f"{bold}{name}{bold} ({len(here)})"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
