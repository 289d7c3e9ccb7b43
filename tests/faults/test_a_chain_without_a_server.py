"""PostgreSQL, RabbitMQ or Slack is away for longer than a whole chain lasts.

Afterwards every step was handed out once, one at a time, and its target got it once.
"""

from itertools import pairwise

import pytest

from tests.faults.conftest import Rig
from tests.support.cases import Cases, sections

pytestmark = [pytest.mark.faults, pytest.mark.promise("P9")]
WAIT = 2.0  # seconds, more than from one poll of the timer to the next
SECTIONS = sections(
    chain=[
        {"to": "slack", "wait": "2s"},
        {"to": "sms", "person": "anna", "wait": "2s"},
        {"to": "email", "person": "ewa", "wait": "2s"},
    ],
)


async def hold(rig: Rig, cases: Cases, case_id: str) -> None:
    """Hold the times of the steps against the waits, and the ledger against SMS and mail."""
    times = [step.handed_out_at for step in cases.steps(case_id)]
    for before, after in pairwise(times):
        assert (after - before).total_seconds() >= WAIT
    sent = "SELECT attempt FROM alerts.delivery WHERE target = %s AND event_type LIKE 'case.%%'"
    since = " AND state = 'delivered' AND created_at >= %s"
    sms = rig.query(sent + since, "sms", times[0])
    assert len(await rig.stack.sandbox.received("sms")) == sum(row.attempt for row in sms)
    mails = rig.query(sent + since, "email", times[0])
    assert len(await rig.stack.sandbox.mails("ewa@example.pl")) == sum(m.attempt for m in mails)


async def test_after_an_outage_of_postgresql_one_step_at_a_time_is_handed_out(
    rig: Rig, cases: Cases
) -> None:
    case_id = await cases.open()
    await rig.database.refuse()
    a_day_ago = "UPDATE alerts.alert_case SET next_at = now() - interval '1 day'"
    rig.query(f"{a_day_ago} WHERE alert_id = %s", case_id)
    await rig.database.resume()
    await cases.case(case_id, state="unanswered")
    await cases.end(case_id, "unanswered", steps=3, asked=1)
    assert {step.attempt for step in cases.steps(case_id)} == {1}
    await hold(rig, cases, case_id)


@pytest.mark.parametrize("taken", [False, True])
async def test_without_rabbitmq_the_chain_goes_on_and_its_steps_are_sent_afterwards(
    rig: Rig, cases: Cases, *, taken: bool
) -> None:
    """Unless somebody has taken it by then: that needs PostgreSQL only."""
    case_id = await cases.open()
    await rig.broker.refuse()
    cases.due(case_id)
    await cases.case(case_id, state="unanswered")
    assert {(step.state, step.attempt) for step in cases.steps(case_id)} == {("pending", 0)}
    if taken:
        await cases.take(case_id)
    await rig.broker.resume()
    if taken:
        await cases.end(case_id, "answered", steps=3, asked=0)
        assert {step.state for step in cases.steps(case_id)} == {"discarded"}
    else:
        await cases.end(case_id, "unanswered", steps=3, asked=1)
        assert {(each.state, each.attempt) for each in cases.steps(case_id)} == {("delivered", 1)}
    await hold(rig, cases, case_id)


async def test_without_slack_the_chain_goes_on_by_sms_and_mail(rig: Rig, cases: Cases) -> None:
    await rig.start(slack={"retry_delays": [3] * 20})
    case_id = await cases.open()
    await rig.slack.refuse()
    cases.due(case_id)
    for number in (1, 2):
        await cases.step(case_id, number, state="delivered", attempt=1)
    await cases.case(case_id, state="unanswered")
    slack = await cases.step(case_id, 0, state="pending")
    assert slack.attempt >= 1
    await rig.slack.resume()
    await cases.step(case_id, 0, state="delivered")
    await cases.at_rest()
    asked = await cases.asked(case_id)
    assert asked in {1, 2}  # an update may follow what may have been shown
    await cases.take(case_id, "jan")
    await cases.end(case_id, "answered", steps=3, asked=asked)
    await hold(rig, cases, case_id)
