"""The drill (docs/drill.md): each trouble is found by its rule and ended by its page."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.up.environment import ROOT
from tests.fullstack.test_observability import require_image
from tests.support.checkouts import Composed
from tests.support.compose import Compose
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.prometheus import Prometheus
from tests.support.troubles import TROUBLES, patiently, steps

pytestmark = pytest.mark.fullstack
CHANGED = ("alerts", "consent")


@pytest.fixture(scope="module")
def ops(running: Any) -> Iterator[tuple[Composed, Prometheus]]:
    """Sit at the shell of the containers; their mail goes to the sandbox, which can misbehave.

    No agreement needs a mail, which would not arrive while it does.
    """
    if running.compose is None:
        pytest.skip("it stops containers; AGAINST=compose has it")
    compose: Compose = running.compose
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    require_image(services["prometheus"]["image"])
    mail = {"SMTP_HOST": "sandbox", "SMTP_PORT": "1025", "SMTP_TLS": "none"}
    with compose.changed(**mail, DOUBLE_OPT_IN="off"):
        compose("up", "--detach", "--wait", "--no-deps", *CHANGED, "prometheus")
        yield Composed(compose), Prometheus(f"http://{HOST}:{compose.values['PROMETHEUS_PORT']}")
    compose("up", "--detach", "--wait", "--no-deps", *CHANGED)


MEANWHILE = {"permit-overrun": ("redis-unavailable", "rate-limit-hit", "trail-mismatch")}
"""While alerts stands still for so long, what has nothing to do with it."""
ALONE = [page for page in TROUBLES if not any(page in pages for pages in MEANWHILE.values())]


@pytest.mark.parametrize("page", ALONE)
async def test_a_trouble_is_told_by_its_rule_and_ended_by_the_page_that_it_names(
    ops: tuple[Composed, Prometheus], page: str
) -> None:
    _, prometheus = ops

    await eventually(prometheus.firing, 60, every=0.3, so=lambda found: not found)

    async def others() -> None:
        for other in MEANWHILE.get(page, ()):
            await _endure(*ops, other)

    await asyncio.gather(_endure(*ops, page), others())


async def _endure(checkout: Composed, prometheus: Prometheus, page: str) -> None:
    trouble, (look, act, verify) = TROUBLES[page], steps(page)

    async def told() -> bool:
        await trouble.goes_on(checkout)
        return page in await prometheus.firing()

    await trouble.begins(checkout)
    await eventually(told, 60, every=0.3)
    await patiently(checkout, look)
    await trouble.mends(checkout)
    await checkout.run(act)
    await patiently(checkout, verify)
    await eventually(prometheus.firing, 60, every=0.3, so=lambda found: page not in found)
