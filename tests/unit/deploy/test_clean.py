"""`make clean` deletes what can be made anew, when somebody says so."""

import io
import sys
from pathlib import Path

import pytest

from deploy.up import __main__ as local
from deploy.up.process import ServerError


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
