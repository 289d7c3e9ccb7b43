"""A flood of valid forms: memory stays bounded, others are served, and each form is one lead (P7).

Followups is killed amid it, so that its queue grows, and has to take what waits.
"""

import asyncio
import itertools
from collections import Counter
from datetime import UTC, datetime

import pytest

from libs.domain.signed_links import Tokens
from tests.support.eventually import eventually
from tests.support.forms import agreed, quiet, submit
from tests.support.memory import resident
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = [pytest.mark.faults, pytest.mark.promise("P7", "P11")]

FLOOD, AT_ONCE = 2_000, 40
GROWTH = 16 * 1024
"""Kilobytes. The last two thirds of the forms, were each kept once, would be more."""
MESSAGE = {f"part_{n}": "Proszę o wycenę remontu. " * 150 for n in range(4)}
"""16 KB, in fields of an older version of the form, which are kept as they come."""


async def test_a_flood_of_forms_leaves_memory_flat_and_others_served(stack: Stack) -> None:
    await stack.sandbox.reset()
    keys, now = Tokens(stack.values["FORM_KEYS"]), datetime.now(UTC)
    issued = keys.sign("contact", "0 2026-11", "form", now)
    run, consents = fresh_address().partition("@")[0], await agreed(stack)
    numbers, found, other = itertools.count(), Counter[int](), Counter[int]()
    memory: list[int] = []
    over = asyncio.Event()

    async def flood() -> None:
        while (number := next(numbers)) < FLOOD:
            email = f"{run}.{number}@example.com"
            answer = await submit(
                stack,
                {"email": email} | MESSAGE,
                form_version="0",
                issued=issued,
                consents=consents if number % 100 == 0 else {},
            )
            found[answer.status] += 1
            if number == FLOOD // 3:
                memory.append(resident(stack.pid("gateway")))
                await stack.kill9("followups")
            if number == FLOOD * 2 // 3:
                await stack.start("followups")

    async def beside() -> None:
        """Another caller, whose alerts and pages go on."""
        while not over.is_set():
            alert = {"event_type": "slack_alert", "payload": {"text": f"beside {run}"}}
            taken = await stack.http("POST", "/api/alerts", alert, key="service")
            page = await stack.http("GET", "/forms/contact")
            other.update([taken.status, page.status])

    watching = asyncio.create_task(beside())
    await asyncio.gather(*(flood() for _ in range(AT_ONCE)))
    over.set()
    await watching
    assert found == {202: FLOOD}
    assert other.keys() == {200, 202}
    assert other[202] > FLOOD / AT_ONCE / 10, "it was served in its turn while the flood ran"
    memory.append(resident(stack.pid("gateway")))
    assert memory[1] - memory[0] < GROWTH

    like = f"{run}.%"

    async def stored() -> bool:
        ((every, different),) = stack.query(
            "SELECT count(*) AS n, count(DISTINCT fields->>'email') AS people"
            " FROM followups.lead_submission WHERE fields->>'email' LIKE %s",
            like,
        )
        return bool(every == different == FLOOD)

    memory.append(resident(stack.pid("followups")))
    await eventually(stored, 240)
    await eventually(lambda: quiet(stack), 240)
    memory.append(resident(stack.pid("followups")))
    assert memory[3] - memory[2] < GROWTH
    ((told,),) = stack.query(
        "SELECT count(DISTINCT d.alert_id) FROM alerts.delivery d"
        " JOIN followups.lead_submission s ON s.id = d.alert_id WHERE s.fields->>'email' LIKE %s",
        like,
    )
    assert told == FLOOD, "one alert each"
