"""With any one component down, a form is answered 202, and is one lead when it is back (P11)."""

import asyncio

import pytest

from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.forms import alerts, new_key, quiet, stored, submit
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = [pytest.mark.faults, pytest.mark.promise("P2", "P11")]

FORMS = 10


@pytest.mark.parametrize(
    "name", ["rabbitmq", "postgres", "redis", "followups", "consent", "alerts"]
)
async def test_a_form_is_taken_while_a_component_is_down(stack: Stack, name: str) -> None:
    await stack.sandbox.reset()
    sent = {fresh_address(): new_key() for _ in range(FORMS)}
    async with stack.without(name):
        answers = await asyncio.gather(
            *(submit(stack, {"email": email}, key=key) for email, key in sent.items())
        )
        again = await asyncio.gather(
            *(submit(stack, {"email": email}, key=key) for email, key in sent.items())
        )
    assert [answer.status for answer in answers] == [202] * FORMS
    assert [answer.body for answer in again] == [answer.body for answer in answers]
    await until(lambda: all(stored(stack, email) for email in sent), 90)
    await eventually(lambda: quiet(stack), 90)
    for email, answer in zip(sent, answers, strict=True):
        assert len(stored(stack, email)) == 1
        assert {row.target for row in alerts(stack, answer.body["id"])} == {"slack", "monday"}
    told = await stack.slack_texts()
    assert [sum(email in text for text in told) for email in sent] == [1] * FORMS
