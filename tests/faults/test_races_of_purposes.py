"""P4 by purpose, in a race: mails of two purposes to one address, and withdrawals of one of them.

After the 200 of a withdrawal SMTP gets no mail of that purpose; none of the other is lost, whatever
is killed meanwhile. Follow-ups are marketing only, so this test hands the mails over itself.
"""

import asyncio
import random
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import aiohttp
import pytest

from libs.common.messaging.broker import Broker, BrokerUnavailable, Message
from tests.faults.test_unsubscribe_races import mails_slowly
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.promise("P4", "P14")

STACK_SETTINGS = {"WITHDRAWAL_WAIT_SECONDS": "2.0"}
PURPOSES = ("marketing", "reminders")


@pytest.fixture(autouse=True)
async def slow(stack: Stack, tmp_path: Path) -> None:
    await mails_slowly(stack, tmp_path)
    await stack.sandbox.behave("email", stage="data", delay_seconds=0.4)


class Sent(NamedTuple):
    id: UUID
    address: str
    purpose: str


class Race:
    """Of each three people one stays, and one withdraws each of the two purposes."""

    def __init__(self, stack: Stack, people: int, seed: int) -> None:
        self.stack = stack
        self.people = {fresh_address(): (None, *PURPOSES)[number % 3] for number in range(people)}
        self.mails = [Sent(uuid4(), who, what) for who in self.people for what in PURPOSES]
        self.ended: dict[str, datetime] = {}
        """By address: when the 200 came."""
        self._chance = random.Random(seed)

    async def agree(self) -> None:
        await asyncio.gather(*map(self.stack.opt_in, self.people))
        self.stack.query(
            "INSERT INTO consent.consent_state (subject_id, purpose, state, changed_at)"
            " SELECT subject_id, 'reminders', 'granted', clock_timestamp()"
            " FROM consent.consent_state WHERE purpose = 'marketing' AND state = 'granted'"
            " ON CONFLICT DO NOTHING"
        )

    async def run(self, victim: str) -> None:
        async with Broker.connect(self.stack.vhost.url("followups"), "followups") as broker:
            for mail in self.mails:
                await eventually(partial(_handed_over, broker, mail))
        leaving = [asyncio.create_task(self._leave(*one)) for one in self.people.items()]
        await eventually(self._begun, 60)
        await self.stack.kill9(victim)
        await self.stack.start(victim)
        await eventually(self._over, 120, every=0.2)
        await asyncio.gather(*leaving)

    async def _leave(self, address: str, purpose: str | None) -> None:
        if purpose is None:
            return
        await asyncio.sleep(self._chance.random() * 2)
        body = {"email": address, "purpose": purpose}
        while address not in self.ended:
            try:
                answer = await self.stack.http("POST", "/api/unsubscribe", body)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.1)
                continue
            assert answer.status in {200, 202, 502, 503, 504}, answer
            if answer.status == 200:
                self.ended[address] = datetime.now(UTC)
            elif answer.status == 202 and self.states()[address, purpose] == "in_doubt":
                return  # which holds the 200 back for ten minutes

    def states(self) -> dict[tuple[str, str], str]:
        rows = self.stack.query(
            "SELECT once_address, once_purpose, state FROM alerts.delivery"
            " WHERE once_address = ANY(%s) AND once_purpose = ANY(%s)",
            list(self.people),
            list(PURPOSES),
        )
        return {(row.once_address, row.once_purpose): row.state for row in rows}

    async def _begun(self) -> bool:
        return "sending" in self.states().values()

    async def _over(self) -> bool:
        states = self.states()
        return len(states) == len(self.mails) and not {*states.values()} & {
            "pending", "claimed", "sending",
        }  # fmt: skip

    async def hold(self) -> None:
        """Hold both directions against SMTP's own record."""
        taken: dict[str, list[datetime]] = {}
        for got in await self.stack.sandbox.received("email"):
            for each in self.mails:
                if str(each.id) in str(got["body"]):
                    taken.setdefault(str(each.id), []).append(datetime.fromisoformat(got["at"]))
        states, stopped = self.states(), 0
        for mail in self.mails:
            state, at = states[mail.address, mail.purpose], taken.get(str(mail.id), [])
            assert len(at) <= 1, "twice"
            if self.people[mail.address] != mail.purpose:
                assert state in {"delivered", "in_doubt"}, f"{mail} was lost: {state}"
                assert at or state == "in_doubt"
            elif (ended := self.ended.get(mail.address)) is not None:
                assert not [each for each in at if each > ended], f"{mail} left after its 200"
                stopped += state == "discarded"
        assert stopped, "no mail was stopped: there was no race"


async def _handed_over(broker: Broker, mail: Sent) -> bool:
    try:
        await broker.publish("alerts", "alerts.intake", _message(mail))
    except BrokerUnavailable:  # not connected yet
        return False
    return True


def _message(mail: Sent) -> Message:
    body: dict[str, Any] = {
        "id": str(mail.id), "event_type": "followup", "target": "email", "severity": "info",
        "dedup_key": None, "source": "followups", "accepted_at": datetime.now(UTC).isoformat(),
        "payload": {
            "to": mail.address, "subject": mail.purpose, "text": str(mail.id), "html": "<p>x</p>",
            "headers": {"Message-ID": f"<{mail.id}@ostoja.example.com>"},
            "conversation_id": str(uuid4()),
        },
        "once": {
            "address": mail.address, "purpose": mail.purpose, "reference": str(uuid4()),
            "not_after": None,
        },
    }  # fmt: skip
    return Message(str(mail.id), "alert.accepted", body)


@pytest.mark.parametrize(
    ("victim", "seed"),
    [
        ("alerts", 1),
        *(
            pytest.param(victim, seed, marks=pytest.mark.faults)
            for victim, seed in (("consent", 1), ("alerts", 2), ("consent", 2))
        ),
    ],
)
async def test_a_withdrawal_of_one_purpose_stops_it_and_loses_none_of_another(
    stack: Stack, victim: str, seed: int
) -> None:
    race = Race(stack, 24, seed)
    await race.agree()
    await race.run(victim)
    await race.hold()
    assert await eventually(stack.balanced)
