"""What an admin does stands in consent's record, also after the person was erased."""

import asyncio

from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import fresh_address


async def test_admin_calls_are_recorded_over_rabbitmq_with_operator_and_outcome(
    stack: Stack,
) -> None:
    address, operator = fresh_address(), "ewa of the test"
    headers = {"X-Operator": operator}
    path = f"/api/consent/audit/{address}"
    assert (await stack.http("GET", path, key="admin", headers=headers)).status == 200
    wanted = "SELECT phase, route, status FROM consent.admin_action WHERE operator = %s ORDER BY at"

    async def recorded() -> bool:
        return len(await asyncio.to_thread(stack.query, wanted, operator)) == 2

    await eventually(recorded, 30)
    rows = await asyncio.to_thread(stack.query, wanted, operator)
    route = "/api/consent/audit/{email}"
    assert [tuple(row) for row in rows] == [("intended", route, None), ("done", route, 200)]
    assert "admin_call.unrecorded" not in stack.log("gateway")
