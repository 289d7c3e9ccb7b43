"""kill -9 of alerts and of followups on the way from an answer to the stop of follow-ups.

No stop is lost (docs/protocols.md, D, step 13): after each restart the lead's steps are cancelled,
once the answer has had its 200.

What the same queue brings and is not acked is in test_a_follow_up_at_each_step.py.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_a_follow_up_at_each_step import HandOver, started
from tests.support.cases import sections
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.proxy import UP
from tests.support.stack import Stack, quick_alerts_config
from tests.support.system import LEAD, Answer, fresh_address

pytestmark = [pytest.mark.faults, pytest.mark.promise("P9")]

POLICY = sections(
    "lead.qualified", within="8h", chain=[{"to": "email", "person": "ewa", "wait": "8h"}]
)


class Taken(HandOver):
    async def start(self, **_: Any) -> None:
        await super().start(ALERTS_CONFIG=str(quick_alerts_config(self.folder, **POLICY)))

    async def lead(self) -> tuple[str, str]:
        """Return the address of a new lead with scheduled steps, and its case."""
        address = fresh_address()
        said = {"session_id": str(uuid.uuid4()), **LEAD}
        said["message"] += f" {address}"
        assert (await self.stack.http("POST", "/api/chatbot/chat", said)).status == 200
        find = "SELECT id FROM followups.lead WHERE known ->> 'email' = %s"

        async def case() -> Any:
            found = self.query(find, address)
            opened = found and self.query(
                "SELECT alert_id FROM alerts.alert_case WHERE alert_id = %s", found[0].id
            )
            return opened[0].alert_id if opened else None

        case_id = await eventually(case, 30)
        assert set(self.statuses(address)) == {("scheduled", None)}
        return address, case_id

    def statuses(self, address: str) -> list[tuple[str, str | None]]:
        rows = self.query(
            "SELECT status, reason FROM followups.followup_event WHERE email = %s", address
        )
        assert rows
        return [(row.status, row.reason) for row in rows]

    async def take(self, case_id: str, key: str = "") -> Answer:
        return await self.stack.http(
            "POST",
            f"/api/cases/{case_id}/answer",
            {"answer": "taken", "by": "ewa"},
            key="service",
            headers={"Idempotency-Key": key or str(uuid.uuid4())},
        )

    async def stopped(self, address: str) -> None:
        await until(lambda: set(self.statuses(address)) == {("cancelled", "taken")}, 40)


@pytest.fixture
async def rig(stack: Stack, tmp_path: Path) -> AsyncIterator[Taken]:
    async with started(Taken, stack, tmp_path) as made:
        yield made


async def test_an_answer_that_has_not_committed_is_none_and_stops_nothing(rig: Taken) -> None:
    address, case_id = await rig.lead()
    async with rig.dies_at("outbox", service="alerts"):
        taking = asyncio.create_task(rig.take(case_id, "press 1"))
    assert (await taking).status >= 500
    (case,) = rig.query("SELECT state FROM alerts.alert_case WHERE alert_id = %s", case_id)
    assert case.state == "open"
    assert set(rig.statuses(address)) == {("scheduled", None)}
    await rig.restart("alerts")
    assert (await rig.take(case_id, "press 1")).status == 200
    await rig.stopped(address)


async def test_an_answer_gets_its_200_without_rabbitmq_and_its_stop_survives_alerts(
    rig: Taken,
) -> None:
    address, case_id = await rig.lead()
    rig.alerts_broker.stall(UP)
    assert (await rig.take(case_id)).status == 200
    assert rig.query("SELECT 1 FROM alerts.outbox WHERE type = 'case.answered'")
    await rig.kill("alerts")
    assert set(rig.statuses(address)) == {("scheduled", None)}
    await rig.restart("alerts")
    await rig.stopped(address)


async def test_a_stop_that_was_not_recorded_comes_again(rig: Taken) -> None:
    address, case_id = await rig.lead()
    async with rig.dies_at("inbox", "INSERT INTO inbox"):
        assert (await rig.take(case_id)).status == 200
    assert set(rig.statuses(address)) == {("scheduled", None)}
    await rig.restart()
    await rig.stopped(address)
