"""An episode: alerts of one key of one caller, until they are resolved; then another begins."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.delivery import case_messages
from services.alerts.rules.case import Rules, Verb
from services.alerts.store.cases import places
from services.alerts.store.cases import queries as case_queries
from tests.integration.alerts.cases import DELIVERED, POLICY, RULES, Cases, answer
from tests.integration.alerts.conftest import StartAlerts

pytestmark = pytest.mark.promise("P9")

NOW = datetime.now(UTC)
ASKING = Rules({"slack_alert": POLICY}, {}, RULES.people, RULES.on_call)
STEPS = len(POLICY.chain)


class Episodes(Cases):
    async def say(self, seconds: float, **fields: Any) -> UUID:
        return await self.accept_all(an_alert(seconds, **fields))

    async def resolve(self, seconds: float, **fields: Any) -> UUID:
        return await self.say(seconds, resolved=True, **fields)

    async def state(self, alert_id: UUID) -> str:
        """Return the state of its delivery to Slack; of a repeat `repeat`."""
        found = await self.rows(
            "SELECT state FROM delivery WHERE alert_id = :id AND target = 'slack' UNION ALL"
            " SELECT 'repeat' FROM duplicate WHERE alert_id = :id",
            id=alert_id,
        )
        (row,) = found
        return str(row.state)

    async def said(self, alert_id: UUID) -> dict[str, Any]:
        """Claim its delivery to Slack, and return what is sent."""
        mine = "SELECT alert_id, target FROM delivery WHERE alert_id = :id AND target = 'slack'"
        (row,) = await self.rows(mine, id=alert_id)
        job = await self.claim(row)
        return (case_messages.recovered(job) if job.resolved else job).payload

    async def cases(self) -> dict[UUID, str]:
        rows = await self.rows("SELECT alert_id, state FROM alert_case ORDER BY opened_at")
        return {row.alert_id: row.state for row in rows}

    async def ok(self) -> bool:
        async with self.engine.connect() as tx:
            return bool((await case_queries.check(tx))["ok"]) and await self.balanced()


def an_alert(seconds: float, **fields: Any) -> dict[str, Any]:
    """Return an alert of this second."""
    given: dict[str, Any] = {"id": uuid4(), "event_type": "slack_alert", "source": "gateway"}
    given |= {"caller": "service", "dedup_key": "disk", "payload": {"text": "disk full"}}
    return given | {"accepted_at": NOW + timedelta(seconds=seconds)} | fields


@pytest.fixture
def subject(engine: AsyncEngine) -> Episodes:
    return Episodes(engine, ASKING)


async def test_what_fires_again_after_it_was_resolved_is_sent_and_asks_again(
    subject: Episodes,
) -> None:
    first, over, again = await subject.say(0), await subject.resolve(1), await subject.say(2)
    assert [await subject.state(each) for each in (first, again)] == ["pending", "pending"]
    assert await subject.cases() == {first: "cancelled", again: "open"}
    assert over not in await subject.cases()
    assert await subject.state(await subject.say(3)) == "repeat"
    assert await subject.ok()


@pytest.mark.parametrize("seconds", [1, 10_000])  # within the window, and after it
async def test_the_end_of_an_episode_is_told_once(subject: Episodes, seconds: float) -> None:
    subject.intake = Episodes(subject.engine, Rules()).intake  # nobody is asked
    await subject.say(0)
    ends = [await subject.resolve(seconds + each) for each in (0, 1, 10_000)]
    assert [await subject.state(each) for each in ends] == ["pending", "repeat", "repeat"]
    assert await subject.said(ends[0]) == {
        "text": "Resolved: disk full",
        "subject": "Resolved: slack_alert",
        "resolved": True,
    }
    await subject.say(seconds + 20_000)
    assert await subject.state(await subject.resolve(seconds + 20_001)) == "pending"


async def test_an_end_whose_beginning_is_not_known_is_told(subject: Episodes) -> None:
    assert await subject.state(await subject.resolve(0)) == "pending"
    assert await subject.cases() == {}


async def test_an_alert_that_comes_after_its_end_is_sent_and_asks_nobody(subject: Episodes) -> None:
    await subject.resolve(5)
    late = await subject.say(0)
    assert (await subject.said(late))["text"] == "Resolved: disk full"
    assert await subject.cases() == {}
    assert await subject.state(await subject.resolve(6)) == "repeat"
    new = await subject.say(7)
    assert await subject.cases() == {new: "open"}


async def test_an_end_that_comes_after_the_next_alert_ends_nothing(subject: Episodes) -> None:
    first = await subject.say(0)
    assert await subject.state(await subject.say(7)) == "repeat"
    assert await subject.state(await subject.resolve(5)) == "repeat"
    assert await subject.cases() == {first: "open"}
    assert (
        await subject.state(await subject.resolve(8)) == "discarded"
    )  # the case's message says it
    assert await subject.cases() == {first: "cancelled"}


@pytest.mark.parametrize("count", [3, 4])  # it fires, is over, fires, is over
async def test_in_whatever_order_alerts_come_the_last_one_decides(
    subject: Episodes, count: int
) -> None:
    orders = list(itertools.permutations(range(count)))
    for order in orders:
        for second in order:
            await subject.say(second, dedup_key=f"{order}", resolved=bool(second % 2))
    open_ = await subject.rows("SELECT dedup_key FROM alert_case WHERE state = 'open'")
    assert sorted(row.dedup_key for row in open_) == sorted(
        f"{order}" for order in orders if count == 3
    )


async def test_a_batch_is_taken_in_the_order_of_its_acceptance(subject: Episodes) -> None:
    alerts = [an_alert(each, resolved=each == 1) for each in range(3)]
    await subject.accept_all(*reversed(alerts))
    assert await subject.cases() == {alerts[-1]["id"]: "open"}
    assert {row.state for row in await subject.rows("SELECT state FROM delivery")} == {"pending"}


async def test_no_caller_swallows_or_ends_the_alerts_of_another(subject: Episodes) -> None:
    mine = await subject.say(0, caller="key:MINE")
    other = await subject.say(1, caller="key:OTHER")
    await subject.resolve(2, caller="key:OTHER")
    assert await subject.cases() == {mine: "open", other: "cancelled"}
    risen = await subject.say(3, caller="key:OTHER", severity="critical")
    assert (await subject.case(mine)).severity == "info"
    assert await subject.state(risen) == "pending"
    assert await subject.state(await subject.say(4, caller="key:MINE")) == "repeat"


async def test_who_is_not_known_matches_every_caller_of_the_same_source(subject: Episodes) -> None:
    """What the release before has written, and what a gateway of it still sends."""
    before = await subject.say(0, caller=None)
    assert await subject.state(await subject.say(1)) == "repeat"
    await subject.resolve(2)
    assert await subject.cases() == {before: "cancelled"}
    await subject.say(3)
    assert await subject.state(await subject.say(4, caller=None)) == "repeat"
    assert await subject.state(await subject.say(5, caller=None, source="followups")) == "pending"


async def test_a_rise_in_severity_is_sent_and_asks_the_next_person_at_once(
    subject: Episodes,
) -> None:
    first = await subject.say(0, severity="warning")
    await subject.tick()
    risen = await subject.say(1, severity="critical", payload={"text": "disk on fire"})
    assert await subject.state(risen) == "pending"
    assert await subject.cases() == {first: "open"}
    await subject.timer.run()
    steps = await subject.steps(first)
    assert [step.severity for step in steps] == ["warning", "critical"]
    await subject.sees(first, severity="critical", payload={"text": "disk on fire"})
    for severity in ("critical", "warning", "info"):
        assert await subject.state(await subject.say(2, severity=severity)) == "repeat"
    await subject.timer.run()
    assert len(await subject.steps(first)) == 2
    await subject.resolve(3)
    assert await subject.cases() == {first: "cancelled"}
    assert await subject.ok()


async def test_a_rise_is_shown_and_changed_like_the_first_alert(subject: Episodes) -> None:
    first = await subject.say(0, severity="warning")
    risen = await subject.say(1, severity="critical", payload={"text": "disk on fire"})
    (row,) = await subject.rows(
        "SELECT alert_id, target FROM delivery WHERE alert_id = :id", id=risen
    )
    job = await subject.claim(row)
    await subject.settle(job, DELIVERED)
    async with subject.engine.begin() as tx:
        receipt = {"channel": "C1", "ts": "1"}
        await places.run(tx, "shown", alert_id=risen, target="slack", want=0, receipt=receipt)
    await subject.answer(first, answer(Verb.TAKEN))
    due = await places.run.alone(subject.engine, "due", batch=places.DUE_BATCH)
    assert [each.alert_id for each in due] == [risen]  # the first was not tried yet
    over = await subject.resolve(2)
    assert await subject.state(over) == "discarded"  # the message of the case says so


async def test_a_rise_after_the_last_step_asks_everyone_again(subject: Episodes) -> None:
    first = await subject.say(0)
    await subject.tick(STEPS)
    risen = await subject.say(1, severity="critical")
    assert await subject.cases() == {first: "open", risen: "open"}
    await subject.take(first)
    higher = await subject.say(2, severity="critical")
    assert await subject.state(higher) == "repeat"


async def test_an_alert_after_the_window_asks_with_the_case_that_is_open(subject: Episodes) -> None:
    first, later = await subject.say(0), await subject.say(10_000)
    assert await subject.state(later) == "pending"
    assert await subject.cases() == {first: "open"}
    await subject.resolve(5)  # which was on its way for long
    assert await subject.cases() == {first: "open"}


async def test_of_one_batch_the_most_severe_opens_the_case(subject: Episodes) -> None:
    await subject.accept_all(an_alert(0), worst := an_alert(1, severity="critical"))
    assert await subject.cases() == {worst["id"]: "open"}
    assert len(await subject.rows("SELECT * FROM case_place")) == 2


async def test_concurrent_intakes_open_one_case_for_each_episode(subject: Episodes) -> None:
    severities = ("info", "warning", "critical")
    said = [subject.say(each, severity=severities[each % 3]) for each in range(30)]
    await asyncio.gather(*said)
    assert list((await subject.cases()).values()) == ["open"]
    ((count,),) = await subject.rows("SELECT count(*) FROM delivery")
    assert count <= 3
    await asyncio.gather(*(subject.resolve(100) for _ in range(10)))
    assert list((await subject.cases()).values()) == ["cancelled"]
    ((ends,),) = await subject.rows("SELECT count(*) FROM delivery WHERE resolved")
    assert ends == 1


async def test_a_redelivered_alert_changes_nothing(subject: Episodes) -> None:
    ids = [uuid4() for _ in range(4)]

    async def all_again() -> None:
        await subject.say(0, id=ids[0])
        await subject.resolve(1, id=ids[1])
        await subject.say(2, id=ids[2])
        await subject.say(3, id=ids[3], severity="critical")

    await all_again()
    before = await subject.case(ids[2])
    states = [await subject.state(each) for each in ids]
    await all_again()
    assert await subject.case(ids[2]) == before
    assert [await subject.state(each) for each in ids] == states
    assert await subject.cases() == {ids[0]: "cancelled", ids[2]: "open"}
    assert await subject.ok()


async def test_staff_read_that_it_is_over(alerts: StartAlerts) -> None:
    subject = await alerts()
    for target in ("slack", "email"):
        fields = {"event_type": target if target == "email" else "slack_alert", "dedup_key": "k"}
        begin = await subject.accept(**fields, payload={"text": "disk full"})
        await subject.until(begin, "delivered", target)  # in one batch it is over before it came
        end = await subject.accept(
            **fields, payload={"text": "disk is fine", "staff_language": "pl"}, resolved=True
        )
        await subject.until(end, "delivered", target)
    said = [one["body"]["text"] for one in await subject.sandbox.received("slack")]
    assert said == ["disk full", "Ustąpiło: disk is fine"]
    assert (await subject.sandbox.mails())[-1]["Subject"] == "Ustąpiło: email"
