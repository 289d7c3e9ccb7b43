import asyncio
import sys
from pathlib import Path

from libs.common import logs, migrate, settings
from libs.common.service import run
from services.consent import app, commands
from services.consent.settings import ConsentSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def main() -> int | str:
    match sys.argv[1:]:
        case [name] if name in commands.COMMANDS:
            configured = settings.load(ConsentSettings)
            logs.configure("consent", configured.log_level)
            return asyncio.run(commands.COMMANDS[name](configured))
        case [_, *_]:
            return migrate.command("consent", MIGRATIONS, sys.argv[1:])
    configured = settings.load(ConsentSettings)
    logs.configure("consent", configured.log_level)
    return run("consent", lambda service: app.start(service, configured))


if __name__ == "__main__":
    sys.exit(main())
