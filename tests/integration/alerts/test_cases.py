"""A case is opened, chased step by step, and answered (docs/protocols.md, D, steps 1 to 13).

The tests of the model's rules are named after docs/models/answer.pml. After the 200 of an answer no
step of its chain starts.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.cases.answers import Refusal
from services.alerts.rules.case import Answer, Ask, Person, Refused, Verb
from services.alerts.store import incidents
from services.alerts.store.cases import cases as store
from services.alerts.store.cases import queries as case_queries
from services.alerts.store.incidents import Way
from tests.integration.alerts.cases import (
    DELIVERED,
    FAILED,
    NEVER,
    PEOPLE,
    POLICY,
    RULES,
    Cases,
    answer,
    closed_for_two_days,
    soon,
    with_policy,
)
from tests.integration.alerts.conftest import StartAlerts, waits_for_a_row
from tests.support.eventually import eventually


@pytest.fixture
def subject(engine: AsyncEngine) -> Cases:
    return Cases(engine)


@pytest.mark.quick
@pytest.mark.promise("P9")
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


@pytest.mark.quick
@pytest.mark.promise("P9")
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


@pytest.mark.quick
@pytest.mark.promise("P9")
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


@pytest.mark.quick
@pytest.mark.promise("P9")
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


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_many_timers_hand_out_each_step_once(subject: Cases) -> None:
    """Rules ROW and ONE: read, handed out and counted under one lock."""
    ids = [await subject.accept() for _ in range(20)]
    await subject.execute("UPDATE alert_case SET next_at = now()")
    await asyncio.gather(*(subject.timer.run() for _ in range(8)))
    for case_id in ids:
        assert [step.number for step in await subject.steps(case_id)] == [0]
        assert (await subject.case(case_id)).step == 1
    assert await subject.balanced()


@pytest.mark.quick
@pytest.mark.promise("P9")
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


@pytest.mark.quick
@pytest.mark.promise("P9")
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


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_a_step_whose_target_has_left_the_configuration_fails_and_is_escalated(
    engine: AsyncEngine,
) -> None:
    subject = Cases(engine, with_policy(chain=(Ask(to="pager", wait=60.0),)))
    _, step = await subject.asked()
    assert (step.state, step.reason) == ("failed", "unrouted")


@pytest.mark.quick
@pytest.mark.promise("P9")
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


@pytest.mark.quick
@pytest.mark.promise("P9")
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


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_an_alert_that_says_resolved_cancels_the_case_of_its_key(subject: Cases) -> None:
    open_ = await subject.accept(dedup_key="disk", source="a")
    other = await subject.accept(dedup_key="disk", source="b")
    await subject.tick()
    await subject.accept(dedup_key="disk", source="a", resolved=True)
    await subject.sees(open_, state="cancelled", reason="resolved", next_at=None)
    assert [step.state for step in await subject.steps(open_)] == ["discarded"]
    assert (await subject.case(other)).state == "open"
    assert await subject.balanced()


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_an_answered_case_that_resolves_stays_answered(subject: Cases) -> None:
    case_id = await subject.accept(dedup_key="disk")
    await subject.take(case_id)
    await subject.accept(dedup_key="disk", resolved=True)
    await subject.sees(case_id, state="answered", outcome="resolved", owner="anna")


@pytest.mark.quick
@pytest.mark.promise("P9")
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
    # The failure that the timer notes may be mailed before the next look opens the incident.
    await eventually(lambda: service.scalar(found), so=lambda found: found == 1)
    await subject.take(case_id)
    await eventually(lambda: service.scalar(found), so=lambda found: not found)


def refused(result: Mapping[str, Any] | Refusal) -> Refused:
    assert isinstance(result, Refusal), result
    return result.why


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_of_ten_people_at_once_one_is_the_owner(subject: Cases) -> None:
    """Rule LOCK."""
    case_id = await subject.accept()
    given = [answer(person=f"person {number}") for number in range(10)]

    async def pressed(one: Answer) -> Mapping[str, Any] | Refusal:
        while True:
            with suppress(DBAPIError):  # the limit of 2 s: a person presses again
                return await subject.answer(case_id, one)

    async with subject.engine.begin() as held:  # until some of them have read, if they do not lock
        await store.lock(held, case_id)
        answering = [asyncio.create_task(pressed(each)) for each in given]
        await eventually(lambda: waits_for_a_row(subject.engine))
    results = await asyncio.gather(*answering)
    taken = [result for result in results if isinstance(result, Mapping)]
    others = [result for result in results if isinstance(result, Refusal)]
    assert len(taken) == 1
    owner = taken[0]["owner"]
    assert {(each.why, each.owner) for each in others} == {(Refused.ANSWERED, owner)}
    assert (await subject.case(case_id)).owner_name == owner


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_the_same_key_gets_the_same_result_and_changes_nothing(subject: Cases) -> None:
    """Rule KEY: taken, given back, and the taking comes again."""
    case_id = await subject.accept()
    taking = answer()
    first = await subject.answer(case_id, taking)
    assert await subject.answer(case_id, taking) == first
    await subject.answer(case_id, answer(Verb.RELEASE))
    assert await subject.answer(case_id, taking) == first
    await subject.sees(case_id, state="open", owner=None)
    other = answer(person="ewa", key=taking.key)
    assert refused(await subject.answer(case_id, other)) is Refused.KEY_USED


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_an_answer_discards_the_steps_that_are_pending(subject: Cases) -> None:
    """Rule TAKE."""
    case_id = await subject.accept()
    await subject.tick(2)
    await subject.take(case_id)
    steps = await subject.steps(case_id)
    assert [(each.state, each.reason) for each in steps] == [("discarded", "answered")] * 2
    assert not await subject.claimable(steps[0])
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 2
    assert await subject.balanced()


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_a_step_in_flight_is_not_tried_again_after_the_answer(subject: Cases) -> None:
    """Rule MARK: a failed attempt ends it, a successful one delivers it."""
    for outcome, state in ((FAILED, "discarded"), (NEVER, "discarded"), (DELIVERED, "delivered")):
        case_id, step = await subject.asked()
        job = await subject.claim(step)
        await subject.take(case_id)
        (step,) = await subject.steps(case_id)
        assert (step.state, step.recalled) == ("sending", True)
        assert await subject.settle(job, outcome) == state
        (step,) = await subject.steps(case_id)
        assert (step.state, step.recalled) == (state, False)
    assert await subject.balanced()


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_a_late_worker_changes_nothing_after_the_recall(subject: Cases) -> None:
    """Rule CAS."""
    case_id, step = await subject.asked()
    late = await subject.claim(step, lease=0)
    await subject.claim(step, take_over=True)
    await subject.take(case_id)
    assert await subject.settle(late, FAILED) is None
    (step,) = await subject.steps(case_id)
    assert (step.state, step.recalled) == ("sending", True)


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_nothing_makes_a_step_pending_once_its_chain_is_over(subject: Cases) -> None:
    """Rule CREATE."""
    case_id, step = await subject.asked()

    async def may() -> bool:
        async with subject.engine.begin() as tx:
            return await store.may_be_pending(tx, step.alert_id)

    assert await may()
    await subject.take(case_id)
    assert not await may()
    await subject.answer(case_id, answer(Verb.RELEASE))
    assert not await may()  # the chain began anew: the step is of an older generation


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_what_a_case_shows_does_not_fall_back_with_the_others(subject: Cases) -> None:
    """Rule CREATE: many rows of many cases cannot lock their cases first."""
    case_id = await subject.accept(severity="critical")
    other = await subject.accept(severity="critical", event_type="slack_alert")
    await subject.tick()
    way = Way("slack", "email", after=0)
    async with subject.engine.begin() as tx:
        others = await incidents.stuck(tx, way, asks=False, batch=10)
        asking = await incidents.stuck(tx, way, asks=True, batch=10)
    assert others == [other]
    (step,) = await subject.steps(case_id)
    assert asking == [case_id, step.alert_id]


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_release_begins_the_chain_anew_at_once_with_steps_of_its_own(subject: Cases) -> None:
    """Rules GEN and ARM."""
    case_id = await subject.accept()
    await subject.tick()
    await subject.take(case_id)
    await subject.answer(case_id, answer(Verb.RELEASE))
    await subject.sees(case_id, state="open", generation=1, step=0, owner=None)
    await subject.timer.run()
    old, new = await subject.steps(case_id)
    assert (old.state, new.state) == ("discarded", "pending")
    assert old.alert_id != new.alert_id


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_only_the_owner_and_an_admin_release(subject: Cases) -> None:
    """Rule OWN."""
    case_id = await subject.accept()
    await subject.take(case_id)
    assert refused(await subject.answer(case_id, answer(Verb.RELEASE, "ewa"))) is Refused.ANSWERED
    assert (await subject.case(case_id)).owner == "anna"
    await subject.answer(case_id, answer(Verb.RELEASE, "ewa", admin=True))
    assert (await subject.case(case_id)).state == "open"


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_only_an_admin_reopens(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.run_out(case_id)
    assert refused(await subject.answer(case_id, answer(Verb.REOPEN))) is Refused.ADMIN
    await subject.answer(case_id, answer(Verb.REOPEN, admin=True))
    await subject.sees(case_id, state="open", generation=1, step=0)
    assert await subject.rows("SELECT * FROM escalation WHERE target = 'cases'") == []


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_later_begins_the_chain_anew_then(subject: Cases) -> None:
    """Rules GEN and ARM."""
    case_id = await subject.accept()
    await subject.tick()
    until = soon(1800)
    await subject.answer(case_id, answer(Verb.LATER, until=until))
    await subject.sees(case_id, state="open", generation=1, step=0, next_at=until)
    assert (await subject.steps(case_id))[0].state == "discarded"
    await subject.timer.run()
    assert len(await subject.steps(case_id)) == 1


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_later_has_its_limits(engine: AsyncEngine) -> None:
    subject = Cases(engine, with_policy(later_times=2, later_most=7200.0))
    case_id = await subject.accept()

    async def later(seconds: float) -> Mapping[str, Any] | Refusal:
        return await subject.answer(case_id, answer(Verb.LATER, until=soon(seconds)))

    assert refused(await later(7500)) is Refused.TOO_LATE
    assert refused(await later(-1)) is Refused.TOO_LATE
    assert refused(await subject.answer(case_id, answer(Verb.LATER))) is Refused.TOO_LATE
    assert isinstance(await later(5000), Mapping)
    assert refused(await later(5000)) is Refused.TOO_LATE  # together more than two hours
    assert isinstance(await later(1000), Mapping)
    assert refused(await later(10)) is Refused.TOO_LATE  # a third time
    assert isinstance(await subject.answer(case_id, answer()), Mapping)


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_a_late_answer_to_an_unanswered_case_counts_and_says_so(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.run_out(case_id)
    later = await subject.answer(case_id, answer(Verb.LATER, until=soon()))
    assert refused(later) is Refused.TOO_LATE
    await subject.take(case_id)
    await subject.sees(case_id, state="answered", late=True, owner_name="Anna Nowak")
    assert {step.state for step in await subject.steps(case_id)} == {"discarded"}
    assert await subject.rows("SELECT * FROM escalation WHERE target = 'cases'") == []


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_a_cancelled_case_is_not_revived(subject: Cases) -> None:
    """Rule END."""
    case_id = await subject.accept(dedup_key="disk")
    await subject.tick()
    await subject.answer(case_id, answer(Verb.CANCEL, reason="a test", admin=True))
    for verb in (Verb.TAKEN, Verb.DONE, Verb.REOPEN, Verb.RELEASE):
        result = await subject.answer(case_id, answer(verb, admin=True))
        assert refused(result) is Refused.ENDED
        assert isinstance(result, Refusal)
        assert result.reason == "manual"
    again = answer(Verb.CANCEL, reason="again", admin=True)
    assert refused(await subject.answer(case_id, again)) is Refused.ENDED
    await subject.accept(dedup_key="disk", resolved=True)
    await subject.sees(case_id, state="cancelled", reason="manual")
    assert {step.state for step in await subject.steps(case_id)} == {"discarded"}


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_a_case_that_is_answered_is_not_cancelled(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    result = await subject.answer(case_id, answer(Verb.CANCEL, reason="x", admin=True))
    assert refused(result) is Refused.ANSWERED


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_closing_takes_it_and_only_the_owner_closes(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.answer(case_id, answer(Verb.NOT_A_LEAD, reason="spam"))
    row = await subject.sees(case_id, state="answered", outcome="not_a_lead", owner="anna")
    assert refused(await subject.answer(case_id, answer(Verb.WON, "ewa"))) is Refused.ANSWERED
    await subject.answer(case_id, answer(Verb.LOST))
    await subject.sees(case_id, outcome="lost", answered_at=row.answered_at)


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_each_change_makes_every_place_due_to_be_told(subject: Cases) -> None:
    """Rule TOLD."""
    case_id = await subject.accept()
    await subject.tick()

    async def wants() -> set[int]:
        return {row.want for row in await subject.rows("SELECT want FROM case_place")}

    assert await wants() == {0}
    await subject.take(case_id)
    assert await wants() == {1}
    await subject.answer(case_id, answer(Verb.RELEASE))
    assert await wants() == {2}
    await subject.answer(case_id, answer(Verb.CANCEL, reason="x", admin=True))
    assert await wants() == {3}


@pytest.mark.quick
@pytest.mark.promise("P9")
async def test_the_role_of_the_service_cannot_rewrite_an_answer(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    await subject.execute("UPDATE case_answer SET reason = NULL")  # an erasure
    for statement in ("UPDATE case_answer SET person = 'x'", "DELETE FROM case_answer"):
        with pytest.raises(DBAPIError):
            await subject.execute(statement)


async def events(subject: Cases) -> list[tuple[str, str, dict[str, Any]]]:
    found = await subject.rows(
        "SELECT exchange, routing_key, body FROM outbox WHERE type LIKE 'case.%' ORDER BY id"
    )
    return [tuple(row) for row in found]


async def leads(subject: Cases) -> list[UUID]:
    return [UUID(body["lead_id"]) for _, _, body in await events(subject)]


async def test_a_take_puts_one_event_without_the_leads_data_into_the_outbox(subject: Cases) -> None:
    case_id = await subject.accept()
    assert await events(subject) == []
    taking = answer()
    for given in (taking, taking, answer(), answer(Verb.WON)):
        await subject.answer(case_id, given)
    [(exchange, key, body)] = await events(subject)
    assert (exchange, key) == ("alerts.events", "case.answered")
    assert body.keys() == {"case_id", "lead_id", "at", "by"}
    assert body["case_id"] == body["lead_id"] == str(case_id)


@pytest.mark.parametrize("verb", [Verb.DONE, Verb.LOST, Verb.NOT_A_LEAD])
async def test_an_answer_that_closes_at_once_is_a_take(subject: Cases, verb: Verb) -> None:
    case_id = await subject.accept()
    await subject.answer(case_id, answer(verb))
    assert await leads(subject) == [case_id]


async def test_each_change_of_owner_is_an_event_in_the_order_of_their_times(subject: Cases) -> None:
    case_id = await subject.accept()
    await subject.take(case_id)
    await subject.answer(case_id, answer(Verb.RELEASE))
    await subject.take(case_id, "ewa")
    found = await events(subject)
    assert [key for _, key, _ in found] == ["case.answered", "case.released", "case.answered"]
    taken, released, again = [body for _, _, body in found]
    assert taken["by"] == released["by"] != again["by"]
    assert taken["at"] < released["at"] < again["at"]


async def test_an_update_of_a_lead_names_the_lead(engine: AsyncEngine) -> None:
    subject = Cases(engine)
    lead = uuid4()
    await subject.take(await subject.accept(payload={"lead_id": str(lead)}))
    assert await leads(subject) == [lead]


async def test_an_alert_of_others_is_no_lead(subject: Cases) -> None:
    await subject.take(await subject.accept(source="gateway"))
    assert await events(subject) == []


async def test_the_policy_may_leave_follow_ups_alone(engine: AsyncEngine) -> None:
    subject = Cases(engine, with_policy(stops_followups=False))
    await subject.take(await subject.accept())
    assert await events(subject) == []
