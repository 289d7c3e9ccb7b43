from pathlib import Path

import pytest

from deploy import lint_migrations

FIRST = "CREATE TABLE thing (id uuid PRIMARY KEY, name text, at timestamptz);"


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "0001_first.sql").write_text(FIRST)
    return tmp_path


def lint(migrations: Path, statement: str) -> int:
    (migrations / "versions" / "0002_next.sql").write_text(f"{statement};\n")
    return lint_migrations.lint(migrations, "thing", "0001")


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("ALTER TABLE thing DROP COLUMN name", "ban-drop-column"),
        ("ALTER TABLE thing RENAME COLUMN name TO title", "renaming-column"),
        ("ALTER TABLE thing RENAME TO other", "renaming-table"),
        ("ALTER TABLE thing ADD COLUMN size int NOT NULL", "adding-required-field"),
        ("ALTER TABLE thing ALTER COLUMN at TYPE text", "changing-column-type"),
        ("ALTER TABLE thing ALTER COLUMN name SET NOT NULL", "adding-not-nullable-field"),
        ("ALTER TABLE thing ADD CHECK (name <> '')", "constraint-missing-not-valid"),
        ("CREATE INDEX thing_at ON thing (at)", "require-concurrent-index-creation"),
        ("DROP TABLE thing", "ban-drop-table"),
    ],
)
def test_what_would_stop_the_release_before_is_refused(
    migrations: Path, sql: str, rule: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lint(migrations, sql) != 0
    assert rule in capfd.readouterr().out


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE thing ADD COLUMN size bigint",
        "ALTER TABLE thing ADD COLUMN note text NOT NULL DEFAULT ''",
        "ALTER TABLE thing ADD CONSTRAINT c CHECK (name <> '') NOT VALID",
        "CREATE TABLE other (id uuid PRIMARY KEY)",
        "CREATE INDEX CONCURRENTLY thing_at ON thing (at)",
        "-- squawk-ignore ban-drop-column\nALTER TABLE thing DROP COLUMN name",
    ],
)
def test_what_the_release_before_ignores_is_accepted(migrations: Path, statement: str) -> None:
    assert lint(migrations, statement) == 0


def test_our_migrations_are_accepted() -> None:
    assert lint_migrations.main() == 0


def test_a_migration_in_python_is_refused(migrations: Path) -> None:
    (migrations / "versions" / "0002_next.py").touch()
    with pytest.raises(ValueError, match="a migration is SQL"):
        lint_migrations.lint(migrations, "thing", "0001")
