"""What the runbooks are for: how each trouble comes about, on whichever system a checkout has."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.support.checkouts import Checkout, CommandError
from tests.support.eventually import eventually
from tests.support.runbooks import RUNBOOKS, Block, sections

Step = Callable[[Checkout], Awaitable[None]]
FIRST = sections(RUNBOOKS / "README.md")["First of all"]
HEADINGS = ("Look", "Act", "Verify")


async def nothing(_: Checkout) -> None:
    """Leave all to the page's own commands."""


@dataclass(frozen=True)
class Trouble:
    begins: Step
    mends: Step = nothing
    """What no command of a page can do: Slack is back, somebody corrects a file."""


async def redis_stops(checkout: Checkout) -> None:
    await checkout.stop("redis")


TROUBLES: dict[str, Trouble] = {
    "redis-away": Trouble(redis_stops),
}
"""By page."""


async def endure(checkout: Checkout, page: str) -> None:
    """Bring the trouble about, and end it by the page: its symptom is seen, then, and only then."""
    trouble = TROUBLES[page]
    steps = sections(RUNBOOKS / f"{page}.md")
    look, act, verify = ([*FIRST, *steps[heading]] for heading in HEADINGS)
    assert all(steps[heading] for heading in ("Look", "Verify"))

    assert not await passes(checkout, look), f"{page}: its symptom is seen without the trouble"
    await trouble.begins(checkout)
    await patiently(checkout, look)
    assert not await passes(checkout, verify), f"{page}: it says that the trouble is over, amid it"
    await trouble.mends(checkout)
    await checkout.run(act)
    await patiently(checkout, verify)


async def passes(checkout: Checkout, blocks: Sequence[Block]) -> bool:
    try:
        await checkout.run(blocks)
    except CommandError:
        return False
    return True


async def patiently(checkout: Checkout, blocks: Sequence[Block], seconds: float = 40) -> None:
    """Repeat what changes nothing until it says what the page says, as a person would.

    :raises CommandError: it still does not
    """

    async def so() -> bool:
        return await passes(checkout, blocks)

    try:
        await eventually(so, seconds, every=0.5)
    except TimeoutError:
        await checkout.run(blocks)
