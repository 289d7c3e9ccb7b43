"""Runs of the tests: what each does of tests/faults, and that two at a time do not meet."""

import fcntl
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import Ports
from tests.support.runs import PREFIX, private_run

ROOT = Path(__file__).parents[3]


def pytest_of(target: str) -> list[str]:
    """Return what `make target` gives to pytest."""
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (command,) = (line for line in done.stdout.splitlines() if "/pytest" in line)
    return shlex.split(command)[1:]


def of_faults(target: str) -> set[str]:
    """Collect as it does, but nothing else; the tests' names without their parameters."""
    arguments = [each for each in pytest_of(target) if each != "tests/faults"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments, "tests/faults"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line)
    return {line.removeprefix("tests/faults/") for line in lines}


def written() -> set[str]:
    return {
        f"{path.name}::{line.removeprefix('async ').removeprefix('def ').partition('(')[0]}"
        for path in (ROOT / "tests" / "faults").glob("test_*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith(("async def test_", "def test_"))
    }


def test_make_test_all_does_some_of_the_faults_and_make_test_faults_all() -> None:
    quick, whole = of_faults("test-all"), of_faults("test-faults")
    assert whole == written()
    assert quick < whole
    assert 5 <= len(quick) < len(whole) / 3
    assert {name.partition("::")[0] for name in quick} >= {
        "test_killed_at_each_step.py",
        "test_killed_gateway.py",
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_run_ends_what_a_killed_one_left_and_nothing_of_one_that_lives(temporary: Path) -> None:
    dead = temporary / f"{PREFIX}dead"
    dead.mkdir()
    (dead / "lock").touch()
    with private_run() as first, private_run() as second:
        assert not dead.exists()
        assert first != second
        assert first.is_dir()
        with (first / "lock").open("r+") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not list(temporary.glob(f"*{PREFIX}*"))


@pytest.fixture
def two() -> Iterator[tuple[Ports, Ports]]:
    both = Ports(), Ports()
    yield both
    for ports in both:
        ports.close()


def test_two_runs_take_no_port_of_each_other(two: tuple[Ports, Ports]) -> None:
    # More than a block of each.
    first, second = ({ports.take() for _ in range(250)} for ports in two)
    assert not first & second
