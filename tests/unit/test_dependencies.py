import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DIRECT = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["services"],
    *PROJECT["dependency-groups"]["dev"],
]


@pytest.mark.parametrize("requirement", DIRECT)
def test_each_direct_dependency_has_its_reason_written_down(requirement: str) -> None:
    name = re.match(r"[a-z0-9-]+", requirement)[0]  # type: ignore[index]
    table = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")

    assert re.search(rf"^\|([^|]*[ ,])?{re.escape(name)}\b[^|]*\|", table, re.MULTILINE)
