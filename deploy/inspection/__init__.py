"""What only an administrator sees, for `ostoja doctor`: .env, config/, RabbitMQ's accounts."""

import tomllib
from pathlib import Path
from typing import Any

from libs.common.process.finding import RESTART, Finding

SAID: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_name("findings.toml").read_text(encoding="utf-8")
)


def say(key: str, **values: Any) -> Finding:
    """Return a finding of findings.toml."""
    said = {"status": "wrong", "do": "", **SAID[key]}
    return Finding(
        part=said["part"],
        status=said["status"],
        found=said["found"].format(**values),
        do=said["do"].format(**values).replace("RESTART", RESTART),
    )
