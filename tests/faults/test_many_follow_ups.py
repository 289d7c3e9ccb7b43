"""Ten thousand due steps and four schedulers, one of them killed: each leaves once.

Counted by Message-ID in the sandbox. Also: duplicates of the messages between the services, out of
order. Kills of alerts with many mails in flight are in test_unsubscribe_races.py.
"""

import asyncio
import itertools
import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import aio_pika
import pytest

from tests.faults.conftest import Start
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = [pytest.mark.faults, pytest.mark.promise("P3")]
PAGE = 1000
AT_ONCE = 50
SCHEDULE = """
WITH people AS (
    INSERT INTO followups.chat_conversations (id, email, session_id)
    SELECT gen_random_uuid(), email, gen_random_uuid()
    FROM unnest(%s::text[]) AS email RETURNING id, email
)
INSERT INTO followups.followup_event
    (id, conversation_id, followup_number, email, sequence, step, enrolled_by, due_at)
SELECT gen_random_uuid(), id, 1, email, 'default', 1, 'api', now() FROM people
RETURNING id::text
"""


async def schedule(stack: Stack, steps: int) -> list[str]:
    """Make so many steps due now, each of a person of its own, who has agreed; their ids."""
    addresses = [fresh_address() for _ in range(steps)]
    for start in range(0, steps, AT_ONCE):
        await asyncio.gather(*map(stack.opt_in, addresses[start : start + AT_ONCE]))
    return [row.id for row in stack.query(SCHEDULE, addresses)]


def statuses(stack: Stack, ids: list[str]) -> dict[str, str]:
    statement = "SELECT id::text, status FROM followups.followup_event WHERE id = ANY(%s::uuid[])"
    return {row.id: row.status for row in stack.query(statement, ids)}


async def until_ended(stack: Stack, ids: list[str], seconds: float) -> dict[str, str]:
    async def ended() -> dict[str, str] | None:
        now = statuses(stack, ids)
        return None if {"scheduled", "handed_over"} & set(now.values()) else now

    return await eventually(ended, seconds, every=1)


async def received(stack: Stack) -> Counter[str]:
    """Count the sandbox's mails to leads by the step in their Message-ID."""
    found: Counter[str] = Counter()
    for start in itertools.count(0, PAGE):
        query = f"start={start}&limit={PAGE}"
        page = await stack.sandbox._call("GET", f"{stack.sandbox.mail_url}/api/v1/messages?{query}")
        names = [mail["MessageID"].partition("@")[0] for mail in page["messages"]]
        found.update(name for name in names if "." not in name)  # else to staff, of a doubt
        if len(page["messages"]) < PAGE:
            break
    return found


async def test_ten_thousand_due_steps_and_four_schedulers_leave_once_each(
    stack: Stack, start_second: Start
) -> None:
    await stack.sandbox.reset()
    await stack.stop("followups")
    ids = await schedule(stack, 10_000)
    await stack.start("followups")
    first, *_ = [start_second("followups") for _ in range(3)]
    await until(lambda: list(statuses(stack, ids).values()).count("scheduled") < 8000, 120)
    first.process.stop(signal.SIGKILL, 10)
    ends = await until_ended(stack, ids, 1800)
    assert Counter(ends.values()) == {"sent": 10_000}
    assert await received(stack) == Counter(ids)


async def test_duplicates_out_of_order_on_both_ways_change_nothing(stack: Stack) -> None:
    await stack.sandbox.reset()
    copies: list[aio_pika.abc.AbstractIncomingMessage] = []
    async with await aio_pika.connect(stack.vhost.admin_url()) as connection:
        channel = await connection.channel()
        spy = await channel.declare_queue("spy", exclusive=True)
        for name, key in (("alerts", "alerts.intake"), ("alerts.events", "followup.*")):
            await spy.bind(name, key)
        await spy.consume(_keep(copies))
        ids = await schedule(stack, 100)
        await until_ended(stack, ids, 120)
        await eventually(_so(lambda: len(copies) == 200), 20)
        random.Random(7).shuffle(copies)
        for copy in copies * 2:
            exchange = await channel.get_exchange(copy.exchange or "", ensure=False)
            duplicate = aio_pika.Message(
                copy.body, message_id=copy.message_id, type=copy.type, headers=copy.headers
            )
            await exchange.publish(duplicate, copy.routing_key or "")
        outcome = {**json.loads(_outcome(copies).body), "outcome": "in_doubt"}
        late = aio_pika.Message(
            json.dumps(outcome).encode(), message_id="a latecomer", type="delivery.settled"
        )
        await (await channel.get_exchange("alerts.events", ensure=False)).publish(
            late, "followup.in_doubt"
        )
    assert await eventually(stack.balanced, 60)
    assert Counter(statuses(stack, ids).values()) == {"sent": 100}
    assert await received(stack) == Counter(ids)


def _outcome(copies: list[Any]) -> Any:
    return next(copy for copy in copies if copy.type == "delivery.settled")


def _keep(copies: list[Any]) -> Callable[[Any], Any]:
    async def keep(message: Any) -> None:
        copies.append(message)
        await message.ack()

    return keep


def _so(is_so: Callable[[], bool]) -> Callable[[], Any]:
    async def asked() -> bool:
        return is_so()

    return asked
