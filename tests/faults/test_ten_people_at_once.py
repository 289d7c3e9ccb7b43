"""Ten people take one case through two replicas, and the one that holds it is killed."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.faults.conftest import Rig
from tests.support.cases import PEOPLE, Cases, sections
from tests.support.system import Answer

pytestmark = [pytest.mark.faults, pytest.mark.promise("P9")]
SECTIONS = sections()


async def test_of_ten_people_at_once_one_is_the_owner_though_a_replica_dies(
    rig: Rig, start_other: Callable[[], Awaitable[int]]
) -> None:
    cases = Cases(rig.stack)
    case_id, other = await cases.open(), await start_other()
    replicas = [int(rig.stack.values["ALERTS_PORT"]), other]
    failed = 0

    async def press(by: str, replica: int) -> Answer:
        """Answer, as a person does it: again until somebody has it, by the other replica."""
        nonlocal failed
        key = str(uuid.uuid4())
        while True:
            try:
                said = await cases.answer(case_id, by=by, key=key, replica=replica)
            except aiohttp.ClientError:
                failed += 1
            else:
                if said.status in {200, 409}:
                    return said
                assert said.status == 503, said
            replica = other

    async with rig.locked("LOCK TABLE alerts.case_answer IN SHARE MODE"):
        first, *rest = PEOPLE
        pressing = [asyncio.create_task(press(first, replicas[0]))]
        await rig.waits_for_a_lock()  # it holds the case; its answer is not written
        pressing += [
            asyncio.create_task(press(by, replicas[number % 2])) for number, by in enumerate(rest)
        ]
        await rig.waits_for_a_lock(len(PEOPLE))
        await rig.stack.kill9("alerts")
    said = await asyncio.gather(*pressing)
    assert failed
    (taken,) = [each.body for each in said if each.status == 200]
    refused = [each.body for each in said if each.status == 409]
    assert {each["owner"] for each in refused} == {taken["owner"]}
    row = await cases.case(case_id, state="answered")
    assert row.owner_name == taken["owner"]
    await rig.restart()
    await cases.end(case_id, "answered", steps=0)
