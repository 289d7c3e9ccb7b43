"""Follow-ups due at one moment, and the people they are for, who leave meanwhile."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import aiohttp

from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import fresh_address

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
