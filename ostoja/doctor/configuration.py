"""Checks .env and config/*.toml as each service will read them at its next start."""

from collections.abc import Iterator

from deploy.check import faults
from ostoja.doctor.deployment import RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, wrong

OLD_DEFAULTS = {"LOGIN_RATE_LIMIT": "20 per 15 minutes"}
"""Which `make env` wrote into .env, and never changes there."""


def check(deployment: Deployment) -> Iterator[Finding]:
    found = faults(deployment.values, deployment.env_file)
    for fault in found:
        yield wrong(
            "configuration", fault, f"correct it, then {RESTART}; until then, restart nothing"
        )
    for name, old in OLD_DEFAULTS.items():
        if deployment.values[name] == old:
            yield wrong(
                "configuration",
                f"{name} is {old}, an older version's default, which an office would soon reach",
                f"write the one of .env.example into .env, then {RESTART}",
            )
    if not found:
        yield ok("configuration", "every service can start with it")
