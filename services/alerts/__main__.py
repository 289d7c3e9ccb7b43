import sys
from pathlib import Path

from libs.common import logs, migrate, settings
from libs.common.service import run
from services.alerts import app
from services.alerts.settings import AlertsSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def main() -> int | str:
    if sys.argv[1:]:
        return migrate.command("alerts", MIGRATIONS, sys.argv[1:])
    configured = settings.load(AlertsSettings)
    logs.configure("alerts", configured.log_level)
    return run("alerts", lambda service: app.start(service, configured))


if __name__ == "__main__":
    sys.exit(main())
