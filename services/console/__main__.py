import asyncio
import sys
from pathlib import Path

from libs.common.process import settings
from libs.common.process.service import run_with
from services.console.settings import ConsoleSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def check() -> None:
    """:raises SystemExit: names the fault that would stop a start"""
    settings.load(ConsoleSettings)


def main() -> int | str:
    from services.console import app

    if sys.argv[1:] == ["invitation"]:
        return asyncio.run(app.print_invitation(settings.load(ConsoleSettings)))
    if sys.argv[1:]:
        from libs.common.database import migrate

        return migrate.command("console", MIGRATIONS, sys.argv[1:])
    return run_with(ConsoleSettings, "console", app.start)


if __name__ == "__main__":
    sys.exit(main())
