"""What `make cut` writes, and what `make release` refuses before it builds."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.up.environment import ROOT

FILES = (
    "CHANGELOG.md",
    "deploy/helm/ostoja/Chart.yaml",
    "ostoja/__init__.py",
    "requirements/cut",
    "requirements/release",
    "services/gateway/openapi.yaml",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "All of it"]):
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *words]
        subprocess.run(git, cwd=tmp_path, check=True)
    return tmp_path


def ran(checkout: Path, script: str, version: str) -> tuple[int, str]:
    given = {"PATH": os.environ["PATH"], "VERSION": version}
    command = [f"requirements/{script}"]
    done = subprocess.run(
        command, cwd=checkout, env=given, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_a_cut_sets_each_version_and_ends_what_is_unreleased(checkout: Path) -> None:
    before = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    assert ran(checkout, "cut", "7.8.9")[0] == 0
    found = [
        re.findall(r"7\.8\.9", (checkout / name).read_text(encoding="utf-8")) for name in FILES
    ]
    assert [len(each) for each in found] == [1, 2, 1, 0, 0, 1]
    after = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    head, _, rest = after.partition("## Unreleased\n\n## 7.8.9 - ")
    assert "Nothing has been released" not in head
    assert rest[11:].strip() == before.partition("## Unreleased\n")[2].strip()
    assert ran(checkout, "cut", "7.8.9") == (1, "CHANGELOG.md has 7.8.9 already\n")
    assert ran(checkout, "cut", "7.8")[0] == 2


def test_a_release_is_of_a_commit_that_says_its_version(checkout: Path) -> None:
    assert "the code says 0.1.0: make cut VERSION=7.8.9" in ran(checkout, "release", "7.8.9")[1]
    assert "say which" in ran(checkout, "release", "")[1]
    assert "CHANGELOG.md has no 0.1.0" in ran(checkout, "release", "0.1.0")[1]
    assert ran(checkout, "cut", "7.8.9")[0] == 0
    assert "commit first" in ran(checkout, "release", "7.8.9")[1]
    assert not (checkout / "dist").exists()
