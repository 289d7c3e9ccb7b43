from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from libs.common.process.settings import Settings, load


class Example(Settings):
    port: int = Field(ge=1)
    api_key: SecretStr = Field(min_length=8)


def test_every_fault_is_named_at_once_and_no_value_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("API_KEY", "hush")
    with pytest.raises(SystemExit) as stopped:
        load(Example)
    assert "PORT" in str(stopped.value)
    assert "API_KEY" in str(stopped.value)
    assert "hush" not in str(stopped.value)


def test_a_secret_may_come_as_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("API_KEY_FILE", str(tmp_path / "key"))
    assert load(Example).api_key.get_secret_value() == "from-a-file"


def test_a_secret_file_that_is_missing_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("API_KEY_FILE", "/nowhere/key")
    with pytest.raises(SystemExit, match="API_KEY_FILE"):
        load(Example)
