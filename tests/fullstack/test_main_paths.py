"""What the system is for, from outside: the demo, which checks each of its steps itself.

A lead is told of once, an ill Slack opens only its breaker and then gets every alert, who has left
gets no further mail, an erased person is gone, and the trail and the ledger hold.
"""

import pytest

from tests.fullstack.conftest import Running
from tests.support.cli import demo
from tests.support.eventually import eventually

pytestmark = [pytest.mark.fullstack, pytest.mark.promise("P1", "P4", "P6")]


async def test_the_demo_goes_well_and_leaves_a_balanced_ledger(system: Running) -> None:
    status, printed = await demo(system)
    assert status == 0, printed

    async def balanced() -> bool:
        return bool((await system.ledger())["ok"])

    await eventually(balanced, 60)
