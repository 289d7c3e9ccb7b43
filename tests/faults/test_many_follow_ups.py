"""Ten thousand due steps and four schedulers, one of them killed: each leaves once.

Counted by Message-ID in the sandbox. Also: duplicates of the messages between the services, out of
order, and kills of alerts, after which exactly the mails that may have been sent are in doubt.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import psycopg2
import pytest

from deploy.up.process import Process
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.ports import Ports
from tests.support.stack import ROOT, Stack
from tests.support.system import fresh_address

pytestmark = [pytest.mark.faults, pytest.mark.promise("P3")]
PAGE = 1000
AT_ONCE = 50
SCHEDULE = """
WITH people AS (
    INSERT INTO followups.chat_conversations (id, email, session_id)
    SELECT gen_random_uuid(), email, gen_random_uuid()
    FROM unnest(%(addresses)s::text[]) AS email RETURNING id, email
)
INSERT INTO followups.followup_event
    (id, conversation_id, followup_number, email, sequence, step, enrolled_by, due_at)
SELECT gen_random_uuid(), id, 1, email, 'default', 1, 'api', now() FROM people
RETURNING id::text
"""


@pytest.fixture
def more(stack: Stack, ports: Ports, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Start one more process of followups each time it is called."""
    started: list[Process] = []

    def start() -> Process:
        process = Process(tmp_path / f"followups-{len(started)}.pid")
        environment = os.environ | stack._environment("followups")
        environment |= {"HTTP_PORT": str(ports.take()), "METRICS_PORT": str(ports.take())}
        log = tmp_path / f"followups-{len(started)}.log"
        argv = [sys.executable, "-m", "services.followups"]
        process.spawn(argv, cwd=ROOT, env=environment, log=log)
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop(signal.SIGTERM, 30)


async def schedule(stack: Stack, steps: int) -> list[str]:
    """Make so many steps due now, each of a person of its own, who has agreed; their ids."""
    addresses = [fresh_address() for _ in range(steps)]
    for start in range(0, steps, AT_ONCE):
        await asyncio.gather(*map(stack.opt_in, addresses[start : start + AT_ONCE]))
    with psycopg2.connect(stack.database.superuser_url) as connection, connection.cursor() as made:
        made.execute(SCHEDULE, {"addresses": addresses})
        ids = [row[0] for row in made.fetchall()]
    connection.close()
    return ids


def statuses(stack: Stack, ids: list[str]) -> dict[str, str]:
    with psycopg2.connect(stack.database.superuser_url) as connection, connection.cursor() as found:
        found.execute(
            "SELECT id::text, status FROM followups.followup_event WHERE id = ANY(%s::uuid[])",
            (ids,),
        )
        rows = dict(found.fetchall())
    connection.close()
    return rows


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
    stack: Stack, more: Callable[[], Process]
) -> None:
    await stack.sandbox.reset()
    await stack.stop("followups")
    ids = await schedule(stack, 10_000)
    await stack.start("followups")
    first, *_ = [more() for _ in range(3)]
    await until(lambda: list(statuses(stack, ids).values()).count("scheduled") < 8000, 120)
    first.stop(signal.SIGKILL, 10)
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


async def test_alerts_killed_while_sending_leave_doubts_and_no_duplicate(stack: Stack) -> None:
    await stack.sandbox.reset()
    await stack.sandbox.behave("email", delay_seconds=0.3, stage="dot")  # many are in flight
    ids = await schedule(stack, 300)
    for _ in range(3):
        await asyncio.sleep(random.Random(11).uniform(1, 3))
        await stack.kill9("alerts")
        await stack.kill9("followups")
        await stack.start("alerts")
        await stack.start("followups")
    await stack.sandbox.heal()
    ends = await until_ended(stack, ids, 240)
    got = await received(stack)
    assert set(got) <= set(ids)
    assert set(ends.values()) <= {"sent", "in_doubt"}
    for followup_id, end in ends.items():
        assert got[followup_id] <= 1
        assert end == "in_doubt" or got[followup_id] == 1
    doubts = {followup_id for followup_id, end in ends.items() if end == "in_doubt"}
    assert doubts, "the kills hit nothing"
    listed: set[str] = set()
    cursor = ""
    while True:
        query = f"?limit=1000{cursor}"
        page = (await stack.http("GET", f"/api/dlq/in-doubt{query}", key="admin")).body
        listed |= {item["id"] for item in page["items"]}
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert doubts <= listed, "a doubt is a person's to end"


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
