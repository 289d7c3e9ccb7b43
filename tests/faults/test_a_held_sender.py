"""P4 at the two moments that a race meets only by luck, each held until the 200 is out.

A sender frozen (SIGSTOP) with its mail written and the dot not: its deadline passes, and so, for
consent, does the quarantine. A worker held while it has its permit, before it may call the row its
own: it is taken over.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from libs.common.messaging.broker import Broker, Message
from tests.faults.conftest import NO_SWEEP, Start, through
from tests.support.cases import until_row
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.proxy import DOWN, UP, Proxy
from tests.support.servers import frozen
from tests.support.stack import Stack, write_alerts_config
from tests.support.system import Answer, fresh_address

pytestmark = pytest.mark.promise("P3", "P4")

STACK_SETTINGS = {"WITHDRAWAL_WAIT_SECONDS": "1"}
CLAIMED_TO_SENDING = b"reason = coalesce("  # the one statement that moves a row by CAS from claimed
NEVER = b"no statement of ours"


@pytest.fixture
async def proxies(stack: Stack) -> AsyncIterator[list[Proxy]]:
    """Stand before SMTP, and before PostgreSQL twice."""
    await stack.sandbox.reset()
    async with AsyncExitStack() as open_:
        ports = (stack.sandbox.smtp_port, stack.postgres.port, stack.postgres.port)
        yield [await open_.enter_async_context(Proxy(port)) for port in ports]
        await stack.kill9("alerts")  # before what it is connected to; the next test starts its own
        stack.changes["alerts"] = {}


async def start_alerts(stack: Stack, folder: Path, mail: dict[str, Any], **settings: str) -> None:
    await stack.stop("alerts")
    config = write_alerts_config(folder, {"email": mail})
    stack.changes["alerts"] = {"ALERTS_CONFIG": str(config), **settings}
    await stack.start("alerts")


async def due_now(stack: Stack) -> str:
    address = fresh_address()
    await stack.opt_in(address)
    await stack.follow_up(address)
    return address


async def row(stack: Stack, address: str, **wanted: Any) -> Any:
    mine = "SELECT * FROM alerts.delivery WHERE once_address = %s"
    return await until_row(stack, mine, address, wanted)


async def unsubscribe(stack: Stack, address: str) -> Answer:
    return await stack.http("POST", "/api/unsubscribe", {"email": address})


async def until_200(stack: Stack, address: str) -> None:
    await eventually(lambda: unsubscribe(stack, address), 30, so=lambda found: found.status == 200)


async def duplicate(stack: Stack, address: str) -> None:
    """Publish a copy as soon as the lease is over; the holder has no hand free for it."""
    claimed = await row(stack, address, state="claimed", attempt=1)

    work = {"alert_id": str(claimed.alert_id), "target": "email", "generation": claimed.generation}
    async with Broker.connect(stack.vhost.url("gateway"), "gateway") as broker:
        await until(
            lambda: stack.query(
                "SELECT 1 FROM alerts.delivery WHERE once_address = %s AND lease_until < now()",
                address,
            )
        )
        message = Message(str(uuid.uuid4()), "alert.work", work)
        await broker.publish("alerts", "alerts.email", message)


async def nothing_left(stack: Stack) -> bool:
    return await stack.sandbox.received("email", refused_too=True) == []


async def test_a_sender_frozen_past_its_deadline_writes_no_dot(
    stack: Stack, proxies: list[Proxy], tmp_path: Path
) -> None:
    smtp, *_ = proxies
    # What is frozen wakes before the time-out, or that would save it.
    mail = {"timeout": 12, "dot_deadline": 2, "retry_delays": [22], "ask_timeout": 5, "margin": 5}
    await start_alerts(stack, tmp_path, mail, SMTP_PORT=str(smtp.port))
    go_ahead = smtp.stall_before(DOWN, b"354")
    address = await due_now(stack)
    await go_ahead.wait()
    held_at = time.monotonic()
    await row(stack, address, state="sending", attempt=1)
    with frozen(stack.pid("alerts")):
        answer = await unsubscribe(stack, address)
        assert (answer.status, answer.body["in_flight"]) == (202, 1)
        stack.query("UPDATE consent.permit SET granted_at = now() - interval '10 minutes'")
        stack.query("UPDATE consent.consent_state SET changed_at = now() - interval '10 minutes'")
        assert (await unsubscribe(stack, address)).status == 200
        await smtp.resume()  # the go-ahead waits in its socket
        await asyncio.sleep(max(0.0, held_at + 2.1 - time.monotonic()))

    async def awake() -> Any:
        (found,) = stack.query("SELECT * FROM alerts.delivery WHERE once_address = %s", address)
        return found if found.state != "sending" else None

    ended = await eventually(awake, 30)
    assert await nothing_left(stack)
    assert (ended.state, ended.reason) == ("pending", "too_late")
    await until(
        lambda: not stack.query("SELECT 1 FROM consent.permit WHERE returned_at IS NULL"), 15
    )  # certainly not sent: nobody need wait for it


@pytest.mark.faults  # its permit must come within two seconds: not beside other tests
async def test_a_worker_that_was_taken_over_before_the_row_was_its_own_sends_nothing(
    stack: Stack, proxies: list[Proxy], tmp_path: Path, start_second: Start
) -> None:
    _, *databases = proxies
    # The hold must end before the service gives up its statement, after 7 s; the lease is 3.3 s.
    mail = {"timeout": 1, "ask_timeout": 2, "margin": 0.3, "retry_delays": [3.3], "concurrency": 1}
    url = str(stack.database.of("alerts"))
    first, second = (
        {"DATABASE_URL": through(proxy, stack.postgres.port, url)} for proxy in databases
    )
    await start_alerts(stack, tmp_path, mail, **NO_SWEEP, **first)
    logs = [lambda: stack.log("alerts"), start_second(**second).log.read_text]
    moves = [proxy.stall_before(UP, CLAIMED_TO_SENDING) for proxy in databases]

    address = await due_now(stack)
    await until(lambda: any(move.is_set() for move in moves))
    (holder,) = [number for number, move in enumerate(moves) if move.is_set()]
    databases[1 - holder].stall_before(UP, NEVER)  # in place of the other's trap
    (permit,) = stack.query("SELECT attempt FROM consent.permit WHERE returned_at IS NULL")
    assert permit.attempt == 1
    leaving = asyncio.create_task(until_200(stack, address))
    await duplicate(stack, address)
    await leaving  # the other has taken over, and so the first permit is void
    before = await row(stack, address, state="discarded", reason="withdrawn", attempt=2)
    await databases[holder].resume()
    await eventually(
        lambda: nothing_left(stack),
        15,
        so=lambda found: '"delivery.fenced"' in logs[holder]() or not found,
    )
    assert await nothing_left(stack)
    assert await row(stack, address) == before
