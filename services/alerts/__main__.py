import os
import sys
from pathlib import Path

from libs.common.database import migrate
from libs.common.process import logs, settings
from libs.common.process.service import run
from services.alerts import config
from services.alerts.settings import AlertsSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def check() -> None:
    """:raises SystemExit: names what a start would stop at"""
    config.load(settings.load(AlertsSettings).alerts_config, os.environ)


def main() -> int | str:
    from services.alerts import app

    if sys.argv[1:]:
        return migrate.command("alerts", MIGRATIONS, sys.argv[1:])
    configured = settings.load(AlertsSettings)
    logs.configure("alerts", configured.log_level)
    return run(
        "alerts",
        lambda service: app.start(service, configured),
        drain_delay=configured.drain_delay_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
