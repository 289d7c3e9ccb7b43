"""`make up` and `make clean`, without servers: what they ask, show, keep and wait for."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import setup
from deploy.up import __main__ as local
from deploy.up import supervisor
from deploy.up.environment import GENERATED
from deploy.up.process import Process, ServerError

LINK = "https://ostoja.example.com/console/invitation/x"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".local" / "postgres").mkdir(parents=True)
    records = tmp_path / ".local" / "consent"
    records.mkdir()
    (records / "withdrawals.jsonl").write_text("{}\n")
    monkeypatch.setattr(local, "ROOT", tmp_path)
    monkeypatch.setattr(local, "LOCAL", tmp_path / ".local")
    monkeypatch.setattr(local, "down", lambda: None)
    monkeypatch.delenv("YES", raising=False)
    return tmp_path


@pytest.mark.parametrize("said", ["", "\n", "y\n", "no\n"])
def test_clean_without_yes_deletes_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    with pytest.raises(ServerError, match="nothing was deleted"):
        local.clean()
    assert (checkout / ".local" / "postgres").exists()


@pytest.mark.parametrize("yes", ["typed", "set"])
def test_clean_deletes_the_data_but_keeps_the_proof_of_erasures(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, yes: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n" if yes == "typed" else ""))
    if yes == "set":
        monkeypatch.setenv("YES", "1")
    local.clean()
    assert not (checkout / ".local").exists()
    (kept,) = (checkout / ".local.kept").glob("consent-*/withdrawals.jsonl")
    assert kept.read_text() == "{}\n"


def test_a_link_for_the_first_admin_goes_to_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.CompletedProcess((), 0, f"{LINK}\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(supervisor, "process_environment", lambda *_: {})
    for terminal in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        local._print_invitation({})
        assert (LINK in capsys.readouterr().out) is terminal


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


def test_a_password_that_a_new_version_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GENERATED:
        monkeypatch.setenv(name, "given")
    monkeypatch.delenv("CONSOLE_DB_PASSWORD")
    with pytest.raises(SystemExit, match="lacks CONSOLE_DB_PASSWORD: `make env` adds"):
        setup.main()
