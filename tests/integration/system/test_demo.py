"""`make demo` on the whole system: it checks each of its steps itself."""

import re

from tests.support.cli import demo
from tests.support.stack import Stack

STACK_SETTINGS = {"DOUBLE_OPT_IN": "on"}


async def test_the_demo_shows_what_the_readme_says(stack: Stack) -> None:
    status, printed = await demo(stack)
    assert status == 0, printed
    taken = r"Lead: kitchen, Gdynia: taken by Ewa Lis, \d\d:\d\d"
    for said in (
        r"an SMS to (Jan|Maria), who is on call: Lead: kitchen, Gdynia: has waited \d min",
        "a mail to Manager, who is asked last: Lead: kitchen, Gdynia: has waited",
        f"Slack is told: {taken}",
        r"Slack is told: .*Kasia Wrona",
        "after this answer the key opens nothing: 401",
        f"(Jan|Maria) is told: {taken}",
        "only Slack's breaker is open",
        "with a case: demo backup .* failed with exit code 3",
        "Slack is told: .*demo backup .* is back",
        "his lead shows what he wrote",
        "listed as undeliverable; another follow-up to it is refused",
        "one event followup.bounced, and its signature fits",
        "they add up, and none is stranded",
    ):
        assert re.search(said, printed), (said, printed)
    assert "Done in" in printed
