import pytest

from deploy import setup
from deploy.up.environment import GENERATED


def test_a_password_that_a_new_version_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GENERATED:
        monkeypatch.setenv(name, "given")
    monkeypatch.delenv("CONSOLE_DB_PASSWORD")
    with pytest.raises(SystemExit, match="lacks CONSOLE_DB_PASSWORD: `make env` adds"):
        setup.main()
