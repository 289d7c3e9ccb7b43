"""docs/promises.md, from the markers: `python -m tests.support.promises >docs/promises.md`."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from deploy.up.environment import ROOT

PAGE = ROOT / "docs" / "promises.md"
HEAD = """\
# Which test proves which promise

Generated from the tests' markers by `python -m tests.support.promises`; a test compares it.
`promise` marks a test that attacks a [promise](../README.md#the-promises). `control` marks one
that shows the attack at work: without one rule of ours, or given a forged history, the promise
breaks and the test sees it. What was broken once, by hand, is with
[each protocol](architecture.md#the-way-of-one-alert). P10 is about
[three hosts](cluster.md#what-each-promise-rests-on). Files in **bold** run in `make test`.
"""


def _marks(node: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name the marks below a node, each with its arguments."""
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "pytest.mark":
            yield each.attr, ()
        elif isinstance(each, ast.Call) and ast.unparse(each.func).startswith("pytest.mark."):
            given = (ast.literal_eval(one) for one in each.args if isinstance(one, ast.Constant))
            yield ast.unparse(each.func).rpartition(".")[2], tuple(given)


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


def promises() -> list[str]:
    """Name README's promises and P10, in order."""
    table = re.findall(r"^\| ([PLM]\d+) \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    return sorted({*table, "P10"}, key=lambda name: ("PLM".index(name[0]), int(name[1:])))


def page() -> str:
    found, lines = tests(), [HEAD]
    for promise in promises():
        lines += [f"## {promise}", "", "| level | tests |", "|---|---|"]
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
    print(page(), end="")  # noqa: T201
