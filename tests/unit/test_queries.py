"""Each query of a queries.sql is run somewhere, and each that is run is there."""

import re
from pathlib import Path

import pytest

from deploy.up.environment import ROOT

FILES = sorted((ROOT / "services").glob("*/store/queries.sql"))
MADE_UP = r"forget_unseen|purge_\w+|find_for_\w+|find"
"""Named by a value."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parts[-3])
def test_each_query_is_run(path: Path) -> None:
    named = re.findall(r"^-- name: (\w+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    code = "".join(each.read_text(encoding="utf-8") for each in path.parents[1].rglob("*.py"))
    run = set(re.findall(r'run\(\s*tx,\s*"(\w+)"', code))
    assert len(named) == len(set(named))
    assert run <= set(named)
    assert [name for name in set(named) - run if not re.fullmatch(MADE_UP, name)] == []
