"""`python -m deploy.lint_migrations`, in `make lint`: squawk on the SQL of the migrations.

It refuses what would stop the old release, which still runs: a removed or renamed column, a
lock that lasts as long as the table is large. docs/upgrade.md lists alternatives. A statement that
is right all the same has `-- squawk-ignore RULE` above it, with its reason.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.up.environment import ROOT, WITH_TABLES
from libs.common.database import migrate

# Migrations up to these are in no release and were not written for this check.
UNCHECKED = {"alerts": "0002", "followups": "0002"}


def lint(migrations: Path, name: str, after: str | None) -> int:
    """Check the migrations after a revision, or all; print what is wrong.

    :returns: squawk's exit code, 0 if nothing is wrong
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.sql"
        with path.open("w", encoding="utf-8") as output:
            migrate.offline_sql(migrations, after, output)
        squawk = Path(sys.executable).with_name("squawk")
        return subprocess.run([squawk, path], cwd=ROOT, check=False).returncode


def main() -> int:
    return max(
        lint(ROOT / "services" / name / "migrations", name, UNCHECKED.get(name))
        for name in WITH_TABLES
    )


if __name__ == "__main__":
    sys.exit(main())
