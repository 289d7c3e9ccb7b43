"""The shipped configuration of followups, as a new company has it."""

from pathlib import Path

from services.followups import config

EXAMPLE = Path(__file__).parents[2] / "config.example"
FOLLOWUPS = config.load(EXAMPLE / "followups.toml", EXAMPLE / "company.toml", quiet_hours=True)
