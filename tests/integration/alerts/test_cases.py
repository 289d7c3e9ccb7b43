"""A case is opened, chased step by step, and ends (docs/protocols.md, D, steps 1, 2, 4 and 11)."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.rules.case import Ask, Person
from services.alerts.store.cases import cases as store
from services.alerts.store.cases import queries as case_queries
from tests.integration.alerts.cases import (
    NEVER,
    PEOPLE,
    POLICY,
    RULES,
    Cases,
    answer,
    closed_for_two_days,
    with_policy,
)
from tests.integration.alerts.conftest import StartAlerts
from tests.support.eventually import eventually

pytestmark = [pytest.mark.quick, pytest.mark.promise("P9")]


@pytest.fixture
def subject(engine: AsyncEngine) -> Cases:
    return Cases(engine)


async def test_an_alert_with_a_policy_opens_one_case_with_a_place_per_asking_target(
    subject: Cases,
) -> None:
    case_id = await subject.accept()
    await subject.accept(id=case_id)  # the message comes again
    row = await subject.sees(case_id, state="open", generation=0, step=0, version=0)
    assert row.next_at == row.opened_at + timedelta(seconds=POLICY.within)
    assert [each["to"] for each in row.chain] == ["slack", "sms", "email"]
    places = await subject.rows("SELECT alert_id, target, want, shown FROM case_place")
    assert places == [(case_id, "slack", 0, None)]
    assert await subject.balanced()


@pytest.mark.parametrize(
    "alert",
    [
        {"event_type": "slack_alert"},  # which has no policy
        {"target": "monday"},  # none of those that ask
        {"payload": {"is_update": True}},
        {"dedup_key": "disk", "resolved": True},
    ],
)
async def test_what_asks_for_nothing_opens_no_case(subject: Cases, alert: dict[str, Any]) -> None:
    await subject.accept(**alert)
    assert await subject.rows("SELECT * FROM alert_case") == []


@pytest.mark.parametrize(
    ("owner", "asked"),
    [
        ("Ewa Lis", [("email", "ewa"), ("slack", "anna"), ("sms", "anna"), ("email", "ewa")]),
        ("Ola Kos", [("slack", "ola"), ("slack", "anna"), ("sms", "anna"), ("email", "ewa")]),
        ("Jan Kos", [("slack", "anna"), ("sms", "anna"), ("email", "ewa")]),  # left the rota
        (None, [("slack", "anna"), ("sms", "anna"), ("email", "ewa")]),
    ],
)
async def test_who_had_a_returning_customer_is_asked_first_if_on_the_rota(
    engine: AsyncEngine, owner: str | None, asked: list[tuple[str, str]]
) -> None:
    others = {key: Person(f"{key.title()} Kos", "U012ABD") for key in ("ola", "jan")}
    rules = replace(RULES, people=PEOPLE | others, rota=lambda _: {"anna", "ola"})
    subject = Cases(engine, replace(rules, needs={"slack": "slack", "email": "email"}))
    previous = {"id": str(uuid4()), "state": "won", "owner": owner}
    case_id = await subject.accept(payload={"score": 1, "previous": previous})
    await subject.tick(len(asked))
    found = [(step.target, step.person) for step in await subject.steps(case_id)]
    assert found == asked
    theirs = await subject.accept(payload={"previous": "of a caller"}, source="crm")
    assert len((await subject.case(theirs)).chain) == len(POLICY.chain)


async def test_each_step_is_handed_out_in_turn_and_then_it_is_unanswered_and_listed(
    subject: Cases,
) -> None:
    case_id = await subject.accept()
    await subject.timer.run()  # not before its time
    assert await subject.steps(case_id) == []
    for number, ask in enumerate(POLICY.chain):
        await subject.tick()
        step = (await subject.steps(case_id))[-1]
        assert (step.number, step.target, step.state) == (number, ask.to, "pending")
        row = await subject.case(case_id)
        assert row.next_at - step.handed_out_at == timedelta(seconds=ask.wait)
    people = [step.person for step in await subject.steps(case_id)]
    assert people == ["anna", "anna", "ewa"]
    await subject.tick()
    await subject.sees(case_id, state="unanswered", next_at=None)
    listed = await subject.rows("SELECT alert_id, target, reason FROM escalation")
    assert listed == [(case_id, "cases", "unanswered")]
    assert {step.state for step in await subject.steps(case_id)} == {"pending"}  # still sent
    assert await subject.balanced()


async def test_after_an_outage_one_step_is_handed_out(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.execute("UPDATE alert_case SET next_at = now() - interval '3 days'")
    await subject.timer.run()
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 1


async def test_many_timers_hand_out_each_step_once(subject: Cases) -> None:
    """Rules ROW and ONE: read, handed out and counted under one lock."""
    ids = [await subject.accept() for _ in range(20)]
    await subject.execute("UPDATE alert_case SET next_at = now()")
    await asyncio.gather(*(subject.timer.run() for _ in range(8)))
    for case_id in ids:
        assert [step.number for step in await subject.steps(case_id)] == [0]
        assert (await subject.case(case_id)).step == 1
    assert await subject.balanced()


async def test_a_case_that_breaks_the_timer_stops_no_other(subject: Cases) -> None:
    bad, *others = [await subject.accept() for _ in range(60)]
    chain = "SELECT chain FROM alert_case WHERE alert_id = :id"
    (good,) = await subject.rows(chain, id=bad)
    broken = '[{"step": "of a release that is to come"}]'
    await subject.execute(f"UPDATE alert_case SET chain = '{broken}' WHERE alert_id = :id", id=bad)
    await subject.execute("UPDATE alert_case SET next_at = now() - interval '1 s'")
    await subject.timer.run()
    assert {(await subject.case(each)).step for each in others} == {1}
    assert await listed(subject) == (0, [])  # a deployment may have been the reason
    again = "UPDATE alert_case SET next_at = now() WHERE alert_id = :id"
    for _ in range(3):
        await subject.execute(again, id=bad)
        await subject.timer.run()
    assert await listed(subject) == (1, [("timer", "TypeError")])
    await subject.execute(
        "UPDATE alert_case SET chain = CAST(:chain AS jsonb), next_at = now() WHERE alert_id = :id",
        chain=json.dumps(good.chain),
        id=bad,
    )
    await subject.timer.run()
    assert len(await subject.steps(bad)) == 1
    assert await listed(subject) == (0, [])
    assert (await subject.check())["ok"]


async def listed(subject: Cases) -> tuple[int, list[tuple[str, str]]]:
    """Return how many cases operators are told of, and why; `stranded` counts them, too."""
    async with subject.engine.connect() as tx:
        count, _ = await store.unanswered(tx, 10)
        assert (await case_queries.check(tx))["stranded"] == count
    told = await subject.rows("SELECT reason, error FROM escalation")
    return count, [(row.reason, row.error) for row in told]


async def test_outside_the_hours_the_timer_waits_for_the_next_opening(engine: AsyncEngine) -> None:
    today = datetime.now(UTC).date()
    closed = closed_for_two_days()
    rules = with_policy(hours="office")
    subject = Cases(engine, type(rules)(rules.policies, {"office": closed}, rules.people))
    case_id = await subject.accept()
    await subject.tick()
    row = await subject.case(case_id)
    assert (row.step, row.next_at.date()) == (0, today + timedelta(days=2))
    assert row.next_at.hour == 9


async def test_a_step_whose_target_has_left_the_configuration_fails_and_is_escalated(
    engine: AsyncEngine,
) -> None:
    subject = Cases(engine, with_policy(chain=(Ask(to="pager", wait=60.0),)))
    _, step = await subject.asked()
    assert (step.state, step.reason) == ("failed", "unrouted")


async def test_a_step_that_failed_brings_the_next_forward(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.tick(2)
    first, second = await subject.steps(case_id)
    # Not the last that was handed out.
    await store.run.alone(subject.engine, "bring_forward", alert_id=first.alert_id)
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 2
    assert await subject.settle(await subject.claim(second), NEVER) == "failed"
    await store.run.alone(subject.engine, "bring_forward", alert_id=second.alert_id)
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 3


async def test_a_failed_step_of_an_older_generation_brings_nothing_forward(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.tick()
    await subject.take(case_id)
    await subject.answer(case_id, answer(verb=answer().verb.RELEASE))
    await subject.tick()
    old, _ = await subject.steps(case_id)
    await store.run.alone(subject.engine, "bring_forward", alert_id=old.alert_id)
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 2


async def test_an_alert_that_says_resolved_cancels_the_case_of_its_key(subject: Cases) -> None:
    open_ = await subject.accept(dedup_key="disk", source="a")
    other = await subject.accept(dedup_key="disk", source="b")
    await subject.tick()
    await subject.accept(dedup_key="disk", source="a", resolved=True)
    await subject.sees(open_, state="cancelled", reason="resolved", next_at=None)
    assert [step.state for step in await subject.steps(open_)] == ["discarded"]
    assert (await subject.case(other)).state == "open"
    assert await subject.balanced()


async def test_an_answered_case_that_resolves_stays_answered(subject: Cases) -> None:
    case_id = await subject.accept(dedup_key="disk")
    await subject.take(case_id)
    await subject.accept(dedup_key="disk", resolved=True)
    await subject.sees(case_id, state="answered", outcome="resolved", owner="anna")


async def test_the_digest_names_the_alerts_that_no_one_answered_until_somebody_does(
    alerts: StartAlerts,
) -> None:
    service = await alerts(ALERTS_ESCALATION_SECONDS="0.5", ESCALATION_EMAIL="ops@example.com")
    subject = Cases(service.engine)
    case_id = await subject.accept()
    await subject.run_out(case_id)

    (mail,) = await eventually(lambda: service.sandbox.mails("ops@example.com"))
    assert mail["Subject"] == "Ostoja: 1 alert no one has answered"
    assert f"ostoja take {case_id} --as NAME" in mail["Text"]
    found = "SELECT count(*) FROM incident WHERE kind = 'unanswered'"
    assert await service.scalar(found) == 1
    await subject.take(case_id)
    await eventually(lambda: service.scalar(found), so=lambda found: not found)
