"""P4 in a race: mails due at one moment, SMTP slow, people leaving; then with processes killed.

Once an unsubscribe was answered 200, SMTP gets no mail to that person, or none of that purpose; by
SMTP's own record, which is of the moment of its answer, and so later than the dot. A quick one runs
in make test-all, the rest in make test-faults.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import aiohttp
import pytest

from libs.common.messaging.broker import Broker, BrokerUnavailable, Message
from tests.support.eventually import eventually
from tests.support.stack import Stack, write_alerts_config
from tests.support.system import fresh_address

pytestmark = pytest.mark.promise("P4")

PATIENCE = 2.0
STACK_SETTINGS = {"WITHDRAWAL_WAIT_SECONDS": str(PATIENCE)}
MAIL: dict[str, Any] = {
    "timeout": 5,
    "margin": 2,
    "ask_timeout": 2,
    "retry_delays": [9] * 5,  # the lease
    "concurrency": 8,
    "breaker": {"fail_max": 1000, "reset_timeout": 1},
}


@pytest.fixture(autouse=True)
async def slow(stack: Stack, tmp_path: Path) -> None:
    await stack.sandbox.reset()
    await stack.stop("alerts")
    config = write_alerts_config(tmp_path, {"email": MAIL})
    stack.changes["alerts"] = {"ALERTS_CONFIG": str(config)}
    await stack.start("alerts")
    stack.vhost.set_retry(r"^alerts\.email\.retry$", MAIL["retry_delays"][0])


@pytest.mark.parametrize("stage", ["data", pytest.param("dot", marks=pytest.mark.faults)])
async def test_after_a_200_no_mail_leaves(stack: Stack, stage: str) -> None:
    await stack.sandbox.behave("email", stage=stage, delay_seconds=0.4)
    denied = raced = 0
    for seed in range(1, 6):  # on a busy machine all mails may leave before the first withdrawal
        race = Race(stack, 32, seed)
        await race.run()
        ends = await race.hold(patience=PATIENCE)
        assert ends["sent"] >= 8  # who stayed, at least
        await race.hold_for_whoever_asks_again()
        assert await eventually(stack.balanced)
        denied += race.denied()
        raced += race.raced()
        if denied and raced:
            return
    pytest.fail(f"no race in five: {denied} mails denied, {raced} permits out at a withdrawal")


async def killed(stack: Stack, victim: str) -> None:
    async with stack.without(victim):
        """Nothing: it is back as soon as it is gone."""


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["data", "dot"])
@pytest.mark.parametrize("victim", ["alerts", "consent", "rabbitmq"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_after_a_200_no_mail_leaves_whatever_is_killed(
    stack: Stack, victim: str, stage: str, seed: int
) -> None:
    await stack.sandbox.behave("email", stage=stage, delay_seconds=0.4)
    race = Race(stack, 48, seed)

    await race.run(meanwhile=partial(killed, stack, victim))
    ends = await race.hold(patience=PATIENCE)
    assert ends["sent"] > 0
    assert ends["cancelled"] > 0
    assert race.raced() > 0
    await race.hold_for_whoever_asks_again()
    assert await eventually(stack.balanced)


AT_ONCE = 16
AGAIN_SECONDS = 0.1
ENDS = {"sent", "cancelled", "in_doubt"}


@dataclass(frozen=True)
class Said:
    """One answer to an unsubscribe."""

    status: int
    in_flight: int
    asked_at: datetime
    at: datetime
    seconds: float


class Race:
    """Of each four people one stays, one leaves when their mail is on its way, one at random, and
    one when the first mail of all is on its way.
    """

    def __init__(self, stack: Stack, people: int, seed: int) -> None:
        self.addresses = [fresh_address() for _ in range(people)]
        self.said: dict[str, list[Said]] = {address: [] for address in self.addresses}
        self._stack = stack
        self._chance = random.Random(seed)
        self._over = asyncio.Event()

    async def run(self, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        """Let them race until every mail has come to an end.

        :param meanwhile: what breaks, from the moment that the first mail is on its way
        """
        await self._everybody_opts_in()
        self._all_due_in(0.5)
        leaving = [
            asyncio.create_task(self._leave(address, number % 4))
            for number, address in enumerate(self.addresses)
            if number % 4
        ]
        try:
            await self._on_its_way(self.addresses)
            if meanwhile is not None:
                await meanwhile()
            await eventually(self._ended, 120, every=0.2)
        finally:
            self._over.set()
            await asyncio.gather(*leaving)

    async def ask(self, address: str) -> Said | None:
        """Unsubscribe, once; None when nobody answered, or with an error."""
        asked_at, start = datetime.now(UTC), monotonic()
        try:
            answer = await self._stack.http("POST", "/api/unsubscribe", {"email": address})
        except (aiohttp.ClientError, TimeoutError):
            return None
        now, seconds = datetime.now(UTC), monotonic() - start
        if answer.status not in {200, 202}:
            assert answer.status >= 500, answer
            return None
        said = Said(answer.status, answer.body.get("in_flight", 0), asked_at, now, seconds)
        self.said[address].append(said)
        return said

    # What became of it.

    def states(self) -> dict[str, str]:
        """Return each person's follow-up as followups lists it."""
        rows = self._stack.query(
            "SELECT email, status FROM followups.followup_event"
            " WHERE email = ANY(%s) AND followup_number = 1",
            self.addresses,
        )
        return {row.email: row.status for row in rows}

    def raced(self) -> int:
        """Count the permits that were out when their person's withdrawal was committed."""
        (row,) = self._stack.query(
            "SELECT count(*) AS permits FROM consent.permit JOIN consent.consent_state"
            " USING (subject_id) WHERE state = 'withdrawn' AND granted_at < changed_at"
            " AND coalesce(returned_at, 'infinity') > changed_at"
        )
        return int(row.permits)

    def denied(self) -> int:
        """Count the mails that consent stopped when they were due."""
        (row,) = self._stack.query(
            "SELECT count(*) AS mails FROM alerts.delivery"
            " WHERE once_address = ANY(%s) AND reason = 'withdrawn'",
            self.addresses,
        )
        return int(row.mails)

    async def taken(self) -> dict[str, list[datetime]]:
        """Return when SMTP had each person's mails, by its own record."""
        mails = await self._stack.sandbox.received("email")
        taken: dict[str, list[datetime]] = {address: [] for address in self.addresses}
        for mail in mails:
            for address in mail["body"]["rcpt_tos"]:
                if address in taken:  # else of another round, or an escalation
                    taken[address].append(datetime.fromisoformat(mail["at"]))
        return taken

    async def hold(self, *, patience: float) -> Counter[str]:
        """Hold the promises against SMTP's record.

        :param patience: seconds in which consent waits for permits
        :returns: how many mails ended in each state
        """
        states, taken = self.states(), await self.taken()
        for address in self.addresses:
            state, mails, said = states[address], taken[address], self.said[address]
            wanted = {"sent": {1}, "cancelled": {0}, "in_doubt": {0, 1}}[state]
            assert len(mails) in wanted, f"{state}, and SMTP took it {len(mails)} times"
            for one in said:
                if one.status == 202:
                    assert one.in_flight > 0, one
                    assert one.seconds >= patience, one
                else:
                    late = [at for at in mails if at > one.at]
                    assert not late, f"SMTP got a mail after the 200: {late} {said}"
        return Counter(states.values())

    async def hold_for_whoever_asks_again(self) -> None:
        """A 202 while the mail is in doubt, and else a 200."""
        states = self.states()

        async def agrees(address: str) -> bool:
            said = await self.ask(address)
            doubtful = states[address] == "in_doubt"
            return said is not None and (said.status, said.in_flight) == (
                (202, 1) if doubtful else (200, 0)
            )

        async with asyncio.TaskGroup() as asking:
            for address in self.addresses:
                if self.said[address]:
                    asking.create_task(eventually(partial(agrees, address), 60))

    async def _everybody_opts_in(self) -> None:
        free = asyncio.Semaphore(AT_ONCE)

        async def one(address: str) -> None:
            async with free:
                await self._stack.opt_in(address)
                await self._stack.follow_up(address, delay_seconds=3600)

        await asyncio.gather(*map(one, self.addresses))

    def _all_due_in(self, seconds: float) -> None:
        self._stack.query(
            "UPDATE followups.followup_event SET due_at = now() + make_interval(secs => %s)"
            " WHERE email = ANY(%s) AND followup_number = 1",
            seconds,
            self.addresses,
        )

    async def _on_its_way(self, addresses: list[str]) -> None:
        async def so() -> bool:
            rows = self._stack.query(
                "SELECT 1 FROM alerts.delivery WHERE once_address = ANY(%s)"
                " AND (state = 'sending' OR finished_at IS NOT NULL) LIMIT 1",
                addresses,
            )
            return bool(rows)

        await eventually(so, 60)

    async def _ended(self) -> bool:
        states = self.states().values()
        return len(states) == len(self.addresses) and {*states} <= ENDS

    async def _leave(self, address: str, when: int) -> None:
        await self._on_its_way([address] if when == 1 else self.addresses)
        if when == 2:
            await asyncio.sleep(self._chance.random() * 3)
        while not self._over.is_set():
            said = await self.ask(address)
            if said is not None and said.status == 200:
                return
            await asyncio.sleep(AGAIN_SECONDS)


PURPOSES = ("marketing", "reminders")


class Sent(NamedTuple):
    id: UUID
    address: str
    purpose: str


class PurposesRace:
    """Mails of two purposes to one address, and withdrawals of one of them.

    Follow-ups are marketing only, so the mails are handed over here. Of each three people one
    stays, and one withdraws each of the two purposes.
    """

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


@pytest.mark.promise("P14")
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
    await stack.sandbox.behave("email", stage="data", delay_seconds=0.4)
    race = PurposesRace(stack, 24, seed)
    await race.agree()
    await race.run(victim)
    await race.hold()
    assert await eventually(stack.balanced)
