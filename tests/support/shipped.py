"""The shipped configuration, as a new company has it."""

from pathlib import Path
from typing import Any

from deploy.up.environment import GENERATED, defaults
from libs.domain import shipped
from services.followups import config

EXAMPLE = Path(__file__).parents[2] / "config.example"
FOLLOWUPS = config.load(EXAMPLE / "followups.toml", EXAMPLE / "company.toml", quiet_hours=True)


def new_env(**settings: str) -> dict[str, str]:
    """Return every setting as a new .env has it, with these."""
    made = {name: make() for name, make in GENERATED.items()}
    return defaults() | made | settings


def whole(name: str) -> dict[str, Any]:
    """Return the example's file with what is shipped below it, as files of before had it."""
    return shipped.read(EXAMPLE / f"{name}.toml", name).whole
