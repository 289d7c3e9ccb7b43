import asyncio
import sys
from pathlib import Path

from libs.common.process import settings
from libs.common.process.service import run_with
from services.followups import commands
from services.followups.settings import FollowupsSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def check() -> None:
    """:raises SystemExit: names the fault that would stop a start"""
    commands.checked(settings.load(FollowupsSettings))


def main() -> int | str:
    from services.followups import app

    match sys.argv[1:]:
        case ["preview", folder]:
            for path in commands.preview(settings.load(FollowupsSettings), Path(folder)):
                sys.stdout.write(f"{path}\n")
            return 0
        case ["send-test", address]:
            count = asyncio.run(commands.send_test(settings.load(FollowupsSettings), address))
            sys.stdout.write(f"queued {count} mails to {address}\n")
            return 0
        case [_, *_]:
            from libs.common.database import migrate

            return migrate.command("followups", MIGRATIONS, sys.argv[1:])
    return run_with(FollowupsSettings, "followups", app.start)


if __name__ == "__main__":
    sys.exit(main())
