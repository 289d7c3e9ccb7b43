"""The documentation: its links lead somewhere, and decisions have one form."""

import ast
import re
from pathlib import Path

import pytest

from deploy.up.environment import ROOT
from tests.support.promql import queues

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


def anchors(page: Path) -> set[str]:
    """Name a page's headings as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for file, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in file:
            continue
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), file + anchor


@pytest.mark.parametrize("page", ["README.md", "docs/compare.md", "docs/index.md"])
def test_each_test_that_a_page_points_to_is_there(page: str) -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)", (ROOT / page).read_text(encoding="utf-8")))
    assert {file for file in named if not (ROOT / file).is_file()} == set()


def test_the_index_of_decisions_lists_each_page_by_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    index = re.findall(
        r"^\| (\d+) \| \[(.+)\]\((.+\.md)\) \| (\S+) \|$",
        (folder / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert sorted(file for *_, file, _ in index) == sorted(
        path.name for path in folder.glob("0*.md")
    )
    for number, title, file, date in index:
        text = (folder / file).read_text(encoding="utf-8")
        status = r"(accepted|superseded by \[decision \d+\]\(\d{4}-[\w-]+\.md\))"
        head = rf"# {number}\. {re.escape(title)}\n\nStatus: {status}\nDate: {date}\n\n## "
        assert re.match(head, text), file
        sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert sections == ["Context", "Decision", "Consequences"], file


def functions(path: Path) -> set[str]:
    """Name a module's functions, and its classes' methods behind their class."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            methods = (each for each in node.body if isinstance(each, _FUNCTIONS))
            found |= {f"{node.name}.{method.name}" for method in methods}
        elif isinstance(node, _FUNCTIONS):
            found.add(node.name)
    return found


def test_the_tour_of_the_code_names_functions_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tour = page.split("## Ten-minute tour of the code")[1].split("\n## ")[0]
    assert re.findall(r"^### (.+)$", tour, re.MULTILINE) == [
        "One alert",
        "One unsubscribe",
        "One chat turn",
        "One form",
        "One mail that comes back",
    ]
    steps = re.findall(r"^\d+\. `([\w/]+\.py):([\w.]+)`", tour, re.MULTILINE)
    assert len(steps) == len(re.findall(r"^\d+\. ", tour, re.MULTILINE))
    named = re.findall(r"`([\w/]+\.py):([\w.]+)`", page)  # outside the tour as alerts names them
    paths = {file: ROOT / file for file, _ in named}
    for file, path in paths.items():
        paths[file] = path if path.exists() else ROOT / "services" / "alerts" / file
    assert [each for each in named if each[1] not in functions(paths[each[0]])] == []


def test_the_page_of_the_asvs_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "asvs.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+/test_\w+\.py)(?:::(\w+))?`", page)
    assert len(named) > 100
    found = {file: functions(ROOT / "tests" / file) | {""} for file, _ in named}
    assert [f"{file}::{name}" for file, name in named if name not in found[file]] == []


RABBITMQ = (ROOT / "docs" / "rabbitmq-ui.md").read_text(encoding="utf-8")


def test_the_page_of_rabbitmq_tells_what_each_queue_is_for() -> None:
    told = set(re.findall(r"`([^`]+)`", RABBITMQ))
    targets = {name.split(".")[1] for name in queues() if re.search(r"\.retry\.\d+$", name)}
    for name in queues():
        shape = re.sub(rf"^alerts\.({'|'.join(targets)})\b", "alerts.<target>", name)
        shape = re.sub(r"\.retry\.\d+$", ".retry.<seconds>", shape)
        shape = re.sub(r"^alerts\.epoch\..*", "alerts.epoch.<id>", shape)
        assert {shape, re.sub(r"^.+(?=\.(retry|dead)$)", "<any>", shape)} & told, name
