import os
import sys
from pathlib import Path

from libs.common.process import settings
from libs.common.process.config_file import ConfigFile
from libs.common.process.service import run_with
from services.alerts.config import rota
from services.alerts.config import targets as config
from services.alerts.settings import AlertsSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def check() -> None:
    """:raises SystemExit: names the fault that would stop a start, and unreadable schedules"""
    path = settings.load(AlertsSettings).alerts_config
    rotas = rota.load(config.load(path, os.environ)[0], path.parent)
    if faults := rota.faults(rotas):  # these stop no start: the last rota, or `otherwise`
        file = ConfigFile(path)
        named = (file.fault(("schedules", name, "file"), text) for name, text in faults.items())
        raise SystemExit("\n".join(named))


def main() -> int | str:
    from services.alerts import app

    if sys.argv[1:]:
        from libs.common.database import migrate

        return migrate.command("alerts", MIGRATIONS, sys.argv[1:])
    return run_with(AlertsSettings, "alerts", app.start)


if __name__ == "__main__":
    sys.exit(main())
