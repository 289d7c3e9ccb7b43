"""What people read in pages and mails, by language."""

import tomllib
from datetime import datetime
from importlib.resources import files
from zoneinfo import ZoneInfo

TEXTS: dict[str, dict[str, str]] = tomllib.loads(
    files("services.console").joinpath("texts.toml").read_text(encoding="utf-8")
)
ZONE = ZoneInfo("Europe/Warsaw")


def moment(at: datetime) -> str:
    return f"{at.astimezone(ZONE):%d.%m.%Y %H:%M}"
