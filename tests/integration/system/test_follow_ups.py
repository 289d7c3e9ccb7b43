"""A follow-up and what followups is told of it, from the enrolment to the mail."""

from typing import Any

from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import fresh_address


async def test_a_refused_follow_up_that_an_operator_retries_is_sent_in_both_services(
    stack: Stack,
) -> None:
    await stack.sandbox.reset()
    address = fresh_address()
    await stack.opt_in(address)
    await stack.sandbox.behave("email", status=550)
    await stack.follow_up(address)

    async def step(status: str) -> Any:
        listed = await stack.http("GET", f"/api/followups?email={address}", key="service")
        first = listed.body["items"][0]
        return first if first["status"] == status else None

    refused = await eventually(lambda: step("failed"), 40)
    assert refused["sent_at"] is None
    await stack.sandbox.heal()
    retried = {"ids": [refused["id"]], "status": "failed"}
    answer = await stack.http("POST", "/api/dlq/retry", retried, key="admin")
    assert answer.body["requeued"] == 1
    sent = await eventually(lambda: step("sent"), 40)
    assert sent["sent_at"] is not None
    assert len(await stack.sandbox.mails(address)) == 1
