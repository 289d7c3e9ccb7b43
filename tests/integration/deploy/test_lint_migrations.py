from pathlib import Path

import pytest

from deploy import lint_migrations
from libs.common import beside

TABLE = beside.toml(__file__, "lint_migrations.toml")
FIRST = "CREATE TABLE thing (id uuid PRIMARY KEY, name text, at timestamptz);"


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "0001_first.sql").write_text(FIRST)
    return tmp_path


def lint(migrations: Path, statement: str) -> int:
    (migrations / "versions" / "0002_next.sql").write_text(f"{statement};\n")
    return lint_migrations.lint(migrations, "thing", "0001")


@pytest.mark.parametrize(("rule", "sql"), TABLE["refused"].items())
def test_what_would_stop_the_release_before_is_refused(
    migrations: Path, sql: str, rule: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lint(migrations, sql) != 0
    assert rule in capfd.readouterr().out


@pytest.mark.parametrize("statement", TABLE["accepted"])
def test_what_the_release_before_ignores_is_accepted(migrations: Path, statement: str) -> None:
    assert lint(migrations, statement) == 0


def test_our_migrations_are_accepted() -> None:
    assert lint_migrations.main() == 0


def test_a_migration_in_python_is_refused(migrations: Path) -> None:
    (migrations / "versions" / "0002_next.py").touch()
    with pytest.raises(ValueError, match="a migration is SQL"):
        lint_migrations.lint(migrations, "thing", "0001")
