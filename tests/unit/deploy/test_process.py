import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.up.process import Process


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    yield started
    for each in started:
        each.kill()
        each.wait()


def test_a_stop_does_not_wait_for_the_process_that_a_supervisor_starts_next(
    tmp_path: Path, sleepers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = sleepers
    process = Process(tmp_path / "service.pid")
    process.note(old.pid)

    def end_and_start_the_next(_: Process, number: int) -> None:
        old.send_signal(number)
        old.wait()
        process.note(new.pid)

    monkeypatch.setattr(Process, "signal", end_and_start_the_next)
    process.stop(signal.SIGTERM, seconds=30)
    assert process.pid == new.pid
    assert new.poll() is None
