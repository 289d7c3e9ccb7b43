import asyncio
import sys
from pathlib import Path

from libs.common.process import logs, settings
from libs.common.process.service import run_with
from libs.domain import company, forms
from services.consent.settings import ConsentSettings

MIGRATIONS = Path(__file__).parent / "migrations"


def check() -> None:
    """:raises SystemExit: names the fault that would stop a start"""
    configured = settings.load(ConsentSettings)
    company.load(configured.company_config)
    forms.load(configured.forms_config)


def main() -> int | str:
    from services.consent import app, commands

    match sys.argv[1:]:
        case [name] if name in commands.COMMANDS:
            configured = settings.load(ConsentSettings)
            logs.configure("consent", configured.log_level)
            return asyncio.run(commands.COMMANDS[name](configured))
        case [_, *_]:
            from libs.common.database import migrate

            return migrate.command("consent", MIGRATIONS, sys.argv[1:])
    return run_with(ConsentSettings, "consent", app.start)


if __name__ == "__main__":
    sys.exit(main())
