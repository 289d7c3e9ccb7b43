"""What each kind of run does of tests/faults."""

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
FAULTS = "tests/faults"


def ran(*command: str) -> list[str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def pytest_of(target: str) -> list[str]:
    """Return what `make target` gives to pytest."""
    (command,) = (line for line in ran("make", "-n", target) if "/pytest" in line)
    return shlex.split(command)[1:]


def test_make_test_all_does_some_of_the_faults_and_make_test_faults_all() -> None:
    whole = pytest_of("test-faults")
    assert FAULTS in whole
    assert not {"-m", "-k"} & {*whole}
    collect = (sys.executable, "-m", "pytest", "--collect-only", "-q", *pytest_of("test-all"))
    found = [line for line in ran(*collect, "-n0", FAULTS) if line.startswith(f"{FAULTS}/test_")]
    quick = {line.partition("[")[0] for line in found}
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / FAULTS).glob("test_*.py")]
    assert 5 <= len(quick) < sum(text.count("\nasync def test_") for text in texts) / 3
    assert {line.partition("::")[0] for line in quick} >= {
        f"{FAULTS}/test_killed_at_each_step.py",
        f"{FAULTS}/test_killed_gateway.py",
    }
