"""Each query of a queries.sql is run somewhere, and each that is run is there."""

import re
from pathlib import Path

import pytest

from deploy.up.environment import ROOT

FILES = sorted((ROOT / "services").glob("*/store/queries.sql"))
MADE_UP = r"forget_unseen|purge_\w+|find_for_\w+|find|save_turn\w*|(held|leads|mentions|strike)_\w+"
"""Named by a value."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parts[-3])
def test_each_query_is_run(path: Path) -> None:
    named = names(path)
    code = "".join(each.read_text(encoding="utf-8") for each in path.parents[1].rglob("*.py"))
    assert len(named) == len(set(named))
    beside = {name for each in path.parent.glob("*.sql") for name in names(each)}
    assert set(re.findall(r'run\(\s*tx,\s*"(\w+)"', code)) <= beside
    said = set(re.findall(r'"(\w+)"', code))
    assert [name for name in set(named) - said if not re.fullmatch(MADE_UP, name)] == []


def names(path: Path) -> list[str]:
    return re.findall(r"^-- name: (\w+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
