"""Cases on the whole system: opened, made due, answered, and each held against P9."""

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from services.alerts.store.cases.places import DUE
from tests.support.eventually import eventually
from tests.support.load import AGAIN_SECONDS, Load
from tests.support.ports import HOST
from tests.support.stack import Stack
from tests.support.system import Answer

PEOPLE = {
    name: {"name": name.title(), "email": f"{name}@example.pl", "phone": f"+4860010020{number}"}
    for number, name in enumerate(
        ("anna", "ewa", "jan", "piotr", "maria", "adam", "zofia", "marek", "julia", "tomasz")
    )
}


def sections(event_type: str = "slack_alert", **policy: Any) -> dict[str, Mapping[str, Any]]:
    """Return sections of alerts.toml, with one policy; a test says itself when a step is due."""
    ask = {"to": "slack", "wait": "1h"}
    given = {"asks": ["slack"], "within": "1h", "chain": [ask, ask]} | policy
    return {"answers": {event_type: given}, "people": PEOPLE, "schedules": {}}


async def until_row(stack: Stack, statement: str, key: str, wanted: Mapping[str, Any]) -> Any:
    """Wait until the first row that a statement finds has these values; the row."""
    found: Any = None

    async def so() -> Any:
        nonlocal found
        found = next(iter(stack.query(statement, key)), None)
        matches = all(getattr(found, name, None) == value for name, value in wanted.items())
        return found if found is not None and matches else None

    try:
        return await eventually(so, 30)
    except TimeoutError:
        pytest.fail(f"wanted {wanted}, found {found}")


class Cases:
    """The cases of one test; Slack is an app."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._taken: dict[str, datetime] = {}
        """When the 200 came to whoever has it."""

    async def open(self, **more: Any) -> str:
        """Send an alert that asks; when this returns, Slack shows it."""
        case_id = await self.stack.alert(f"fault {uuid.uuid4()}", **more)
        await self.place(case_id, shown=0)
        return case_id

    def due(self, case_id: str) -> None:
        self.stack.query(
            "UPDATE alerts.alert_case SET next_at = now() WHERE alert_id = %s AND state = 'open'",
            case_id,
        )

    async def run_out(self, case_id: str) -> None:
        async def over() -> bool:
            (row,) = self.stack.query(
                "SELECT state, next_at > now() AS waits FROM alerts.alert_case WHERE alert_id = %s",
                case_id,
            )
            if row.waits:
                self.due(case_id)
            return bool(row.state == "unanswered")

        await eventually(over, 30)

    async def answer(
        self,
        case_id: str,
        verb: str = "taken",
        by: str = "anna",
        *,
        key: str | None = None,
        replica: int | None = None,
        **more: Any,
    ) -> Answer:
        """Answer it.

        :param replica: the port of one to ask past the gateway
        """
        path, body = f"/api/cases/{case_id}/answer", {"answer": verb, "by": by, **more}
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        if replica is None:
            said = await self.stack.http("POST", path, body, key="service", headers=headers)
        else:
            said = await self._ask(replica, path, body, headers)
        if said.status == 200 and verb != "taken":
            self._taken.pop(case_id, None)
        return said

    async def take(self, case_id: str, by: str = "anna", **how: Any) -> None:
        said = await self.answer(case_id, by=by, **how)
        assert said.status == 200, said
        self._taken[case_id] = datetime.now(UTC)

    # What is known of it.

    async def case(self, case_id: str, **wanted: Any) -> Any:
        """Wait until its row is so."""
        return await self._row(
            "SELECT * FROM alerts.alert_case WHERE alert_id = %s", case_id, wanted
        )

    async def step(self, case_id: str, number: int = 0, **wanted: Any) -> Any:
        """Wait until the delivery of its newest step of this number is so."""
        return await self._row(
            "SELECT delivery.*, case_step.generation AS of FROM alerts.case_step"
            " JOIN alerts.delivery USING (alert_id, target)"
            f" WHERE case_id = %s AND number = {number:d} ORDER BY case_step.generation DESC",
            case_id,
            wanted,
        )

    async def place(self, alert_id: str, **wanted: Any) -> Any:
        """Wait until what is known of an alert's or step's message is so."""
        return await self._row(
            "SELECT * FROM alerts.case_place WHERE alert_id = %s", alert_id, wanted
        )

    async def update(self, alert_id: str, **wanted: Any) -> Any:
        """Wait until the delivery of the last update of a place is so."""
        return await self._row(
            "SELECT delivery.* FROM alerts.case_place JOIN alerts.delivery"
            " ON delivery.alert_id = update_id WHERE case_place.alert_id = %s",
            alert_id,
            wanted,
        )

    def steps(self, case_id: str) -> list[Any]:
        """Return its steps, each with its delivery, in the order of their hand-out."""
        return self.stack.query(
            "SELECT case_step.*, state, reason, attempt, last_attempt_at FROM alerts.case_step"
            " JOIN alerts.delivery USING (alert_id, target) WHERE case_id = %s"
            " ORDER BY case_step.generation, number",
            case_id,
        )

    async def asked(self, case_id: str) -> int:
        """Return how many messages in Slack, but for the alert's own, have asked for an answer.

        What follows a message whose receipt is not known asks again.
        """
        return sum(
            case_id in body["text"] and "ts" not in body for body in await self._received("slack")
        )

    async def check(self) -> dict[str, Any]:
        """Return the equation of cases, which holds at any moment."""
        answer = await self.stack.http("GET", "/api/cases/check", key="admin")
        check: dict[str, Any] = answer.body
        states = ("open", "answered", "unanswered", "cancelled")
        assert check["opened"] == sum(check[state] for state in states), check
        return check

    # How it ends.

    async def end(self, case_id: str, state: str, *, steps: int, asked: int | None = None) -> None:
        """Wait until nothing is on its way; then hold it against P9.

        :param steps: how many steps its last generation has handed out
        :param asked: how many of its messages have asked in Slack, if not one for each step
        """
        await self.at_rest()
        check = await self.check()
        assert check["ok"] is True, check
        row = await self.case(case_id)
        assert row.state == state, row
        by_generation: dict[int, list[int]] = {row.generation: []}
        for step in self.steps(case_id):
            by_generation.setdefault(step.generation, []).append(step.number)
            late = case_id in self._taken and step.last_attempt_at is not None
            assert not (late and step.last_attempt_at > self._taken[case_id]), step
        for numbers in by_generation.values():
            assert numbers == list(range(len(numbers)))
        assert len(by_generation[row.generation]) == row.step == steps
        if state == "unanswered":
            assert steps == len(row.chain)
            listed = "SELECT 1 FROM alerts.escalation WHERE alert_id = %s AND target = 'cases'"
            assert len(self.stack.query(listed, case_id)) == 1
        if state == "answered":
            await self._says(case_id, row.owner_name)
        found = await self.asked(case_id)
        assert found == (steps if asked is None else asked), await self._received("slack")

    async def at_rest(self) -> None:
        """Wait until every delivery has ended and every place shows how its case stands."""

        async def so() -> bool:
            if await self.stack.balanced() is None:
                return False
            left = f"SELECT 1 FROM outbox UNION ALL SELECT 1 FROM case_place WHERE {DUE}"
            return not self.stack.query(f"SET LOCAL search_path = alerts; {left}")

        await eventually(so, 60)

    async def _says(self, case_id: str, owner: str) -> None:
        """Hold every message whose receipt is known against its owner."""
        bodies, said = await self._received("slack"), f"taken by {owner}"
        last = {body["ts"]: str(body) for body in bodies if "ts" in body}
        posted_since = sum(said in body["text"] for body in bodies if "ts" not in body)
        places = self.stack.query(
            "SELECT receipt FROM alerts.case_place WHERE case_id = %s AND receipt IS NOT NULL",
            case_id,
        )
        changed = [last[place.receipt["ts"]] for place in places if place.receipt["ts"] in last]
        assert all(said in text for text in changed), changed
        assert 1 <= len(places) <= len(changed) + posted_since, (places, bodies)

    async def _received(self, target: str) -> list[Any]:
        return [one["body"] for one in await self.stack.sandbox.received(target)]

    async def _row(self, statement: str, key: str, wanted: Mapping[str, Any]) -> Any:
        return await until_row(self.stack, statement, key, wanted)

    async def _ask(self, port: int, path: str, body: Any, headers: Mapping[str, str]) -> Answer:
        internal = self.stack._environment("alerts")["INTERNAL_API_KEY"]
        sent = {"X-Internal-Key": internal, "X-Caller": "service", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{HOST}:{port}{path}", json=body, headers=sent) as answer,
        ):
            return Answer(answer.status, await answer.json(content_type=None), dict(answer.headers))


class CaseLoad(Load):
    """Its alerts open cases; two people take every second one, each until somebody has it."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack, clients=4)
        self.event_type = "sms"
        self.taken: dict[str, tuple[str, datetime]] = {}
        """The name of each owner, and when its 200 came."""
        self._cases = Cases(stack)

    async def _until_accepted(self, text: str, key: str, **fields: Any) -> str:
        case_id = await super()._until_accepted(text, key, **fields)
        if len(self.accepted) % 2:
            both = await asyncio.gather(*(self._take(case_id, by) for by in ("jan", "ewa")))
            assert sorted(both) == [200, 409], both
        return case_id

    async def _take(self, case_id: str, by: str) -> int:
        key = str(uuid.uuid4())
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                said = await self._cases.answer(case_id, by=by, key=key)
                if said.status == 200:
                    self.taken[case_id] = said.body["owner"], datetime.now(UTC)
                if said.status in {200, 409}:
                    return said.status
                assert said.status in {404, 502, 503, 504}, said
            await asyncio.sleep(AGAIN_SECONDS)

    async def end(self) -> None:
        """Wait until all have ended, and hold them against P9 and against what people were told."""
        assert self.taken

        await eventually(self._cases.check, 60, every=0.2, so=lambda found: found["open"] == 0)
        await self._cases.at_rest()
        check = await self._cases.check()
        assert check["ok"] is True, check
        rows = self._cases.stack.query(
            "SELECT alert_case.*, ARRAY(SELECT coalesce(last_attempt_at, handed_out_at)"
            " FROM alerts.case_step JOIN alerts.delivery USING (alert_id)"
            " WHERE case_id = alert_case.alert_id) AS tried"
            " FROM alerts.alert_case WHERE alert_id = ANY(%s::uuid[])",
            list(self.accepted),
        )
        assert len(rows) == len(self.accepted)
        for row in rows:
            assert len(row.tried) == row.step
            if row.alert_id in self.taken:
                owner, at = self.taken[row.alert_id]
                assert (row.state, row.owner_name) == ("answered", owner), row
                assert all(tried <= at for tried in row.tried), (row, at)
            else:
                assert (row.state, row.step) == ("unanswered", len(row.chain)), row
