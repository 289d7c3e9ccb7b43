import sys
from pathlib import Path

from libs.common import logs, migrate, settings
from libs.common.service import run
from services.followups import app
from services.followups.settings import FollowupsSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def main() -> int:
    if sys.argv[1:]:
        return migrate.command("followups", MIGRATIONS, sys.argv[1:])
    configured = settings.load(FollowupsSettings)
    logs.configure("followups", configured.log_level)
    return run("followups", lambda service: app.start(service, configured))


if __name__ == "__main__":
    sys.exit(main())
