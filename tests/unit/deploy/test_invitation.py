"""`make up` shows the link for the first admin to who runs it, and to no log."""

import subprocess
import sys

import pytest

from deploy.up import __main__ as local
from deploy.up import supervisor

LINK = "https://ostoja.example.com/console/invitation/x"


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
