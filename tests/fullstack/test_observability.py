"""The profile `observability`: Prometheus finds what runs in the containers."""

import subprocess
from typing import Any

import aiohttp
import pytest
import yaml

from deploy.up.environment import ROOT, SERVICES
from tests.support.compose import Compose, docker
from tests.support.eventually import eventually
from tests.support.ports import HOST

pytestmark = pytest.mark.fullstack


def require_image(name: str) -> None:
    """Skip the test where the image neither is nor can be pulled; no other test needs it."""
    if not docker("image", "ls", "--quiet", name):
        pulled = subprocess.run(["docker", "pull", "--quiet", name], check=False)
        if pulled.returncode:
            pytest.skip(f"{name} is not to be had here")


async def test_prometheus_finds_every_container_and_takes_every_rule(compose: Compose) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    require_image(services["prometheus"]["image"])
    compose("up", "--detach", "--wait", "prometheus")

    async def ask(kind: str) -> Any:
        url = f"http://{HOST}:{compose.values['PROMETHEUS_PORT']}/api/v1/{kind}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return (await answer.json())["data"]

    async def health() -> dict[str, str]:
        targets = (await ask("targets"))["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets}

    wanted = {*SERVICES, "rabbitmq", "queues"}

    try:
        await eventually(health, 60, every=1, so=lambda found: found == dict.fromkeys(wanted, "up"))
    except TimeoutError:
        pytest.fail(str(await health()))
    (group,) = (await ask("rules"))["groups"]
    assert "LedgerCheckFailing" in {rule["name"] for rule in group["rules"]}
