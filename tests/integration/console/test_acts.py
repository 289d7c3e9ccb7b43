"""What other services did is in the record, once, whenever the console is killed."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from libs.common.messaging.broker import Broker, Message, PublishError
from libs.domain.acts import ACTION_RECORD, EXCHANGE
from tests.integration.console.conftest import Console, stopping_at
from tests.support.brokers import Vhost
from tests.support.consumers import until
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P12")

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "contracts/action.record.json").read_text(encoding="utf-8")
)


def act(**changes: Any) -> dict[str, Any]:
    return GOLDEN | {"id": str(uuid.uuid4()), **changes}


async def publish(broker: Broker, body: dict[str, Any]) -> None:
    await broker.publish(EXCHANGE, ACTION_RECORD, Message(body["id"], ACTION_RECORD, body))


@pytest.mark.parametrize("committed", [False, True])
async def test_an_act_is_recorded_once_after_a_kill(
    idle_console: Console,
    vhost: Vhost,
    committed: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    console = idle_console
    console.environment["AMQP_URL"] = vhost.url("console")
    await console.start(stopping_at("record.Acts.take", after=committed))
    sent = act()
    async with Broker.connect(vhost.url("alerts"), "alerts") as broker:

        async def taken() -> bool:
            try:
                await publish(broker, sent)
            except PublishError:  # the queue is not there yet
                return False
            return True

        await eventually(taken, 30)
        await console.stopped()
        console.kill9()
        await console.start(None)
        last = act(action="alert.retry")  # the queue is in order
        await publish(broker, last)
        await until(
            lambda: console.query("SELECT 1 FROM staff_action WHERE id = %s", last["id"]), 30
        )
    (row,) = console.query("SELECT * FROM staff_action WHERE id = %s", sent["id"])
    assert (row.actor_name, row.roles, row.count) == ("Ewa Lis", ["ops", "viewer"], 17)
    assert row.at.isoformat().startswith("2026-11-25T")


async def test_the_record_is_found_by_person_act_and_day_and_no_act_is_left_out(
    console: Console,
) -> None:
    """It also starts, serves and takes acts over HTTP without RabbitMQ."""
    same = {"at": "2026-11-25T23:30:00+00:00", "actor_id": "ABC", "actor_kind": "key"}
    sent = [act(**same) for _ in range(60)]
    sent += [act(action="limits.change"), act(at="2026-11-25T22:59:59+00:00")]
    for each in [*sent, sent[0]]:
        answer = await console.call("POST", "/internal/actions", each, caller="service")
        assert answer.status == 202

    async def listed(query: str) -> set[str]:
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await console.call("GET", f"/api/actions?{query}&cursor={cursor}")
            assert page.status == 200, page
            found += [each["id"] for each in page.body["items"]]
            cursor = page.body["next_cursor"]
        assert len(found) == len(set(found))
        return set(found)

    ids = [each["id"] for each in sent]
    assert await listed("") == set(ids)
    assert await listed("actor=ABC") == set(ids[:60])
    assert await listed("action=limits.change") == {ids[60]}
    assert await listed("day=2026-11-26") == set(ids[:60])  # it begins at 23:00 UTC
    assert await listed("day=2026-11-25&action=alert.discard") == {ids[61]}
    for wrong in ("day=yesterday", "day=", "cursor=7", "day=9999-12-31"):
        assert (await console.call("GET", f"/api/actions?{wrong}")).status == 422
    bad = await console.call("POST", "/internal/actions", act(actor_kind="x"), caller="service")
    assert bad.status == 422
    assert (await console.call("POST", "/internal/actions", act(), caller="public")).status == 401
