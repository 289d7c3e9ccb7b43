import sys
from pathlib import Path

from libs.common import logs, migrate, settings
from libs.common.service import run
from services.consent import app
from services.consent.settings import ConsentSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def main() -> int:
    if sys.argv[1:]:
        return migrate.command("consent", MIGRATIONS, sys.argv[1:])
    configured = settings.load(ConsentSettings)
    logs.configure("consent", configured.log_level)
    return run("consent", lambda service: app.start(service, configured))


if __name__ == "__main__":
    sys.exit(main())
