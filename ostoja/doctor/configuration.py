"""Checks .env and config/*.toml as each service will read them at its next start."""

from collections.abc import Iterator

from deploy.check import faults
from ostoja.doctor.deployment import RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, wrong


def check(deployment: Deployment) -> Iterator[Finding]:
    found = faults(deployment.values, deployment.env_file)
    for fault in found:
        yield wrong(
            "configuration", fault, f"correct it, then {RESTART}; until then, restart nothing"
        )
    if not found:
        yield ok("configuration", "every service can start with it")
