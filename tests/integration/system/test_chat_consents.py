"""What a chat asks consent for and withdraws, as consent records it: by purpose and channel."""

import itertools
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.conftest import WholeSystem
from tests.support.eventually import eventually
from tests.support.shipped import EXAMPLE
from tests.support.stack import Stack
from tests.support.system import LEAD, fresh_address

pytestmark = pytest.mark.promise("P4")

ASKS = """
[[wordings]]
version = "chat-each"
place = "chat"
grants = ["marketing:email", "marketing:phone", "reminders:email"]
text.pl = "O co pytamy: Ostoja Wnętrza sp. z o.o., https://www.ostoja-wnetrza.example/prywatnosc"
text.en = "What we ask: Ostoja Wnętrza sp. z o.o., https://www.ostoja-wnetrza.example/prywatnosc"
"""
numbers = itertools.count(600_700_100)


@pytest.fixture(scope="module")
def stack(whole_system: WholeSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    path = tmp_path_factory.mktemp("company") / "company.toml"
    path.write_text((EXAMPLE / "company.toml").read_text("utf-8") + ASKS, encoding="utf-8")
    with whole_system({"COMPANY_CONFIG": str(path)}) as running:
        yield running


class Visitor:
    def __init__(self, stack: Stack) -> None:
        self.stack, self.session = stack, uuid.uuid4().hex
        self.address, self.number = fresh_address(), f"+48{next(numbers)}"
        self.ask: dict[str, Any] = {}

    async def sends(self, **said: Any) -> None:
        body = {"session_id": self.session, "language": "pl"} | said
        answer = await self.stack.http("POST", "/api/chatbot/chat", body)
        assert answer.status == 200, answer
        self.ask = answer.body["ask"] or {}

    async def is_asked(self, **contact: str) -> list[str]:
        await self.sends(message=LEAD["message"], **contact)
        assert self.ask["kind"] == "consent"
        return self.choices

    @property
    def choices(self) -> list[str]:
        return [each["id"] for each in self.ask["choices"]]

    async def taps(self, choice: str) -> None:
        shown = self.ask["wording"]["sha256"]
        await self.sends(tap={"ask": self.ask["id"], "choice": choice, "wording": shown})

    async def stands(self, who: str, *granted: str) -> None:
        """Wait until consent holds these, and no others, for an address or a number."""

        def so(found: dict[str, Any]) -> bool:
            held = {
                f"{name}:{channel}"
                for name, by in (found["purposes"] or {}).items()
                for channel, each in by.items()
                if each["state"] == "granted"
            }
            return held == set(granted)

        await eventually(lambda: self.stack.consents(who), so=so)


async def test_each_thing_that_the_wording_grants_is_agreed_to_by_itself(stack: Stack) -> None:
    visitor = Visitor(stack)
    offered = await visitor.is_asked(email=visitor.address, phone=visitor.number)
    assert offered == ["yes", "yes-marketing-phone", "yes-reminders", "no"]
    await visitor.sends(message="tak")  # to all of them, or to which?
    await visitor.taps("yes-marketing-phone")
    assert visitor.choices == ["yes", "yes-reminders"], "the others are asked for still"
    await visitor.stands(visitor.number, "marketing:phone")
    await visitor.taps("yes-reminders")
    await visitor.taps("skip")
    await visitor.stands(visitor.address, "reminders:email")
    entries = (await stack.audit(visitor.number))["entries"]
    assert {each["evidence"]["wording_version"] for each in entries} == {"chat-each"}


async def test_a_refusal_withdraws_for_the_address_and_for_the_number(stack: Stack) -> None:
    visitor = Visitor(stack)
    await visitor.is_asked(email=visitor.address, phone=visitor.number)
    for choice in ("yes", "yes-marketing-phone"):
        await visitor.taps(choice)
    await visitor.stands(visitor.number, "marketing:phone")
    await visitor.stands(visitor.address, "marketing:email")
    await visitor.sends(message="nie chcę żadnych wiadomości")
    await visitor.stands(visitor.number)
    await visitor.stands(visitor.address)


async def test_who_gave_a_number_only_is_asked_for_calls_only_and_may_refuse_them(
    stack: Stack,
) -> None:
    visitor = Visitor(stack)
    assert await visitor.is_asked(phone=visitor.number) == ["yes-marketing-phone", "no"]
    await visitor.taps("no")
    trail = partial(stack.audit, visitor.number)
    await eventually(trail, so=lambda found: "'unsubscribe'" in str(found["entries"]))


async def test_a_number_that_was_given_by_mistake_keeps_no_agreement(stack: Stack) -> None:
    visitor, right = Visitor(stack), f"+48{next(numbers)}"
    await visitor.is_asked(phone=visitor.number)
    await visitor.taps("yes-marketing-phone")
    await visitor.stands(visitor.number, "marketing:phone")
    await visitor.sends(tap={"ask": "card", "choice": "phone"})
    await visitor.sends(tap={"ask": visitor.ask["id"], "value": right})
    await visitor.stands(visitor.number)
    await visitor.stands(right)
