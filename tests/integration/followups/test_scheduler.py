"""Due steps are handed over once, in order and within the cap. Also stops and outcomes."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from jinja2 import TemplateError

from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Ack, Disposition, Retry
from services.followups import config, retention
from services.followups.config import Step
from services.followups.mails.compose import Recipient
from services.followups.mails.scheduler import BATCH
from services.followups.messages import SubjectErased
from services.followups.store import conversations, sql, steps, tables
from tests.integration.followups.conftest import GOOD_LEAD, World
from tests.support.shipped import EXAMPLE

pytestmark = [pytest.mark.quick, pytest.mark.promise("P3")]

TALKS = tables.chat_conversations
ERASURE = "7d0f3c52-91d4-4d0b-8a4e-3a5f7c1e2b90"


def now() -> datetime:
    return datetime.now(UTC)


async def drain(world: World, cap: int = 1) -> None:
    scheduler = world.scheduler(cap)
    while await scheduler.hand_over(now()):
        pass


async def test_a_due_step_becomes_a_message_in_the_same_transaction(world: World) -> None:
    [first, _] = await world.enrol("jan@example.com")
    await world.scheduler().hand_over(now())
    [alert] = await world.outbox("alert.accepted")
    assert alert["id"] == str(first["id"])
    assert alert["once"] == {
        "address": "jan@example.com", "purpose": "marketing", "reference": str(first["id"]),
        "not_after": None,
    }  # fmt: skip
    assert alert["payload"]["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert await world.statuses() == ["handed_over", "scheduled"]


async def test_four_schedulers_hand_each_due_step_over_once(world: World) -> None:
    emails = [f"lead{n}@example.com" for n in range(250)]
    for email in emails:
        await world.enrol(email, steps=1)
    await asyncio.gather(*(drain(world) for _ in range(4)))
    alerts = await world.outbox("alert.accepted")
    assert sorted(alert["payload"]["to"] for alert in alerts) == sorted(emails)
    assert set(await world.statuses()) == {"handed_over"}


async def test_an_address_gets_one_mail_a_day_across_its_conversations(world: World) -> None:
    for session in ("a", "b", "c"):
        await world.say(f"{GOOD_LEAD}, jan@example.com", session)
    await world.enrol("jan@example.com")
    await world.make_due()
    await asyncio.gather(*(drain(world) for _ in range(4)))
    assert len(await world.outbox("alert.accepted")) == 1
    await world.age(hours=25)
    await world.sent()
    await world.make_due()
    await asyncio.gather(*(drain(world) for _ in range(4)))
    assert len(await world.outbox("alert.accepted")) == 2


async def test_two_schedulers_at_one_address_share_its_cap(world: World) -> None:
    await world.enrol("jan@example.com", steps=1)
    await world.enrol("same@example.com", steps=1)
    await world.sql("UPDATE followup_event SET email = 'jan@example.com'")
    async with world.engine.begin() as other:
        [claimed], _ = await steps.claim(other, 1)
        recent = await steps.recent_hand_overs(other, ["jan@example.com"], [claimed["id"]])
        assert recent == ({"jan@example.com": []}, set())
        # It sees the other step, but not yet this one's outcome.
        await world.scheduler().hand_over(now())
    assert sorted(await world.statuses()) == ["handed_over", "scheduled"]
    await drain(world)
    assert await world.outbox("alert.accepted") == []


@pytest.mark.parametrize("cap", [1, 5])
async def test_a_step_in_flight_holds_back_others_to_the_same_address(
    world: World, cap: int
) -> None:
    first, _ = await world.enrol("jan@example.com")
    for _ in range(3):  # the mail server is down for days
        await world.make_due()
        await drain(world, cap)
        await world.age(hours=30)
    assert await world.statuses() == ["handed_over", "scheduled"]
    assert len(await world.outbox("alert.accepted")) == 1
    await world.consumers.outcomes(settled(first["id"], "sent"))
    await world.make_due()
    await drain(world, cap)
    assert (await world.statuses())[1] == ("scheduled" if cap == 1 else "handed_over")


async def test_a_mailbox_that_is_refused_gets_no_later_steps(world: World) -> None:
    first, _ = await world.enrol("nobody@example.com", seconds=-1)
    await world.scheduler().hand_over(now())
    refused = settled(first["id"], "failed", reason="refused")
    await world.consumers.outcomes(refused)
    assert await world.statuses() == ["failed", "cancelled"]


async def test_a_hand_over_of_which_nothing_is_heard_is_in_doubt_and_blocks_nothing(
    world: World,
) -> None:
    await world.enrol("jan@example.com", seconds=-1)
    await world.scheduler().hand_over(now())
    await world.age(hours=24 * (retention.OUTCOME_DAYS + 1))
    await retention.doubt(world.engine)
    assert (await world.statuses())[0] == "handed_over", "it waits in our own outbox"
    await world.published()
    await retention.doubt(world.engine)
    assert (await world.statuses())[0] == "in_doubt"
    await world.make_due()
    await world.scheduler().hand_over(now())
    assert (await world.statuses())[1] == "handed_over"


async def test_an_address_is_in_one_sequence_at_a_time(world: World) -> None:
    rows = await world.enrol("jan@example.com", seconds=60)
    async with world.engine.begin() as tx:
        here = await conversations.conversation_of_address(tx, "jan@example.com")
        await steps.lock_address(tx, "jan@example.com")
        other = await steps.enrol(tx, here, "jan@example.com", "other", [now()], "api", None)
    assert not other.is_new
    assert [row["id"] for row in other.rows] == [row["id"] for row in rows]


async def test_an_address_corrected_to_an_enrolled_one_gets_no_second_mails(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com", "first")
    await world.say(f"{GOOD_LEAD}, jna@example.com", "second")
    await world.say("literówka: jan@example.com", "second")
    assert await world.statuses("jan@example.com") == ["scheduled", "scheduled"]
    assert set(await world.statuses("jna@example.com")) == {"cancelled"}


async def test_a_step_that_missed_its_window_leaves_later_under_a_new_id(world: World) -> None:
    [row] = await world.enrol("jan@example.com", steps=1)
    step = row["id"]
    await world.scheduler().hand_over(now())
    late = settled(step, "too_late")
    for _ in range(2):
        assert await world.consumers.outcomes(late) == Ack()
    assert await world.statuses() == ["scheduled"]
    await world.make_due()
    await world.scheduler().hand_over(now())
    first, second = await world.outbox("alert.accepted")
    assert first["id"] == str(step) != second["id"]
    assert first["once"]["reference"] == second["once"]["reference"] == str(step)
    # An outcome of the old message does not apply to the new one.
    for outcome in ("too_late", "cancelled", "failed"):
        await world.consumers.outcomes(settled(step, outcome))
    assert await world.statuses() == ["handed_over"]
    new = settled(step, "sent", alert_id=uuid.UUID(second["id"]))
    await world.consumers.outcomes(new)
    assert await world.statuses() == ["sent"]


async def test_a_step_of_a_person_who_pauses_leaves_after_that_under_a_new_id(world: World) -> None:
    [row] = await world.enrol("jan@example.com", steps=1)
    await world.scheduler().hand_over(now())
    message, until = settled(row["id"], "too_late"), now() + timedelta(days=30)
    body = {**message.body, "not_before": until.isoformat()}
    assert await world.consumers.outcomes(replace(message, body=body)) == Ack()
    [step] = await world.steps()
    assert (step["status"], step["due_at"]) == ("scheduled", until)
    await world.scheduler().hand_over(now())
    assert await world.statuses() == ["scheduled"]


async def test_a_step_that_missed_its_window_after_a_stop_is_cancelled(world: World) -> None:
    [row] = await world.enrol("jan@example.com", steps=1)
    await world.scheduler().hand_over(now())
    await world.published()
    await world.consumers.consent_events(withdrawn("jan@example.com"))
    assert await world.statuses() == ["handed_over"]
    await world.consumers.outcomes(settled(row["id"], "too_late"))
    [step] = await world.steps()
    assert (step["status"], step["reason"]) == ("cancelled", "unsubscribe")


async def test_a_hand_over_names_the_end_of_its_window(world: World) -> None:
    await world.enrol("jan@example.com", steps=1)
    hours = config.load(EXAMPLE / "followups.toml", EXAMPLE / "company.toml").hours
    open_at = hours.next_opening(now())
    await world.scheduler(hours=hours).hand_over(open_at)
    (alert,) = await world.outbox("alert.accepted")
    assert datetime.fromisoformat(alert["once"]["not_after"]) == hours.closing(open_at)


async def test_steps_leave_in_order(world: World) -> None:
    first, second = await world.enrol("jan@example.com")
    async with world.engine.begin() as tx:
        await steps.retime(tx, [first], [now() + timedelta(hours=1)], "api")
        await steps.retime(tx, [second], [now() - timedelta(hours=1)], "api")
    await world.scheduler(cap=5).hand_over(now())
    assert await world.statuses() == ["scheduled", "scheduled"]


async def test_steps_that_wait_for_an_earlier_one_do_not_starve_others(world: World) -> None:
    for n in range(BATCH):
        first, second = await world.enrol(f"lead{n}@example.com")
        async with world.engine.begin() as tx:
            await steps.retime(tx, [first], [now() + timedelta(hours=1)], "api")
            await steps.retime(tx, [second], [now() - timedelta(hours=1)], "api")
    await world.enrol("jan@example.com", steps=1)
    for _ in range(2):
        await world.scheduler().hand_over(now())
    assert await world.statuses("jan@example.com") == ["handed_over"]
    assert set(await world.statuses("lead7@example.com")) == {"scheduled"}


async def test_the_check_for_an_earlier_step_costs_the_same_however_many_wait(world: World) -> None:
    """Even if the planner's statistics know of no scheduled step."""
    await world.enrol("jan@example.com")
    await world.sql("UPDATE followup_event SET status = 'failed', reason = 'test'")
    await world.sql("ANALYZE followup_event")
    await world.enrol("anna@example.com")
    claim = sql.run.texts["claim"].replace(":limit", str(BATCH))
    async with world.engine.connect() as tx:
        await tx.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = "\n".join((await tx.exec_driver_sql(f"EXPLAIN {claim}")).scalars())
    assert plan.count("Scan using followup_event_due") == 1, plan
    assert "using followup_event_number on followup_event earlier" in plan


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(hours=-1), timedelta(days=400)])
async def test_a_clock_jump_neither_duplicates_nor_loses_a_step(
    world: World, jump: timedelta
) -> None:
    for n in range(20):
        await world.enrol(f"lead{n}@example.com", steps=1)
    for at in (now(), now() + jump, now()):
        await asyncio.gather(*(world.scheduler(cap=9).hand_over(at) for _ in range(2)))
    alerts = [alert["id"] for alert in await world.outbox("alert.accepted")]
    assert len(alerts) == len(set(alerts)) == 20


async def test_a_step_that_is_no_longer_configured_fails_alone(world: World) -> None:
    await world.enrol("gone@example.com", steps=3)
    await world.enrol("jan@example.com", steps=1)
    await world.sql("UPDATE followup_event SET sequence = 'gone' WHERE email LIKE 'gone@%'")
    await world.scheduler().hand_over(now())
    assert (await world.statuses("gone@example.com"))[0] == "failed"
    assert await world.statuses("jan@example.com") == ["handed_over"]


@pytest.mark.parametrize("fault", [TypeError, KeyError, OSError, RecursionError, TemplateError])
async def test_a_step_whose_template_raises_fails_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    await world.enrol("odd@example.com", steps=1)
    await world.enrol("jan@example.com", steps=1)
    subject = world.scheduler()
    render = subject._mails.render

    def broken(step: Step, to: Recipient, at: datetime) -> dict[str, Any]:
        if to.email == "odd@example.com":
            raise fault
        return render(step, to, at)

    monkeypatch.setattr(subject._mails, "render", broken)
    await subject.hand_over(now())
    [failed] = await world.steps("odd@example.com")
    assert (failed["status"], failed["reason"]) == ("failed", f"template: {fault.__name__}")
    assert await world.statuses("jan@example.com") == ["handed_over"]


# --- consent ----------------------------------------------------------------------------------


def withdrawn(email: str, kind: str = "consent.withdrawn", **more: Any) -> Message:
    body = {
        "email": email, "purposes": ["marketing"], "action": "unsubscribe",
        "at": now().isoformat(), **more,
    }  # fmt: skip
    return Message(id=str(uuid.uuid4()), type=kind, body=body)


async def test_a_withdrawal_cancels_the_remaining_steps_of_its_address_only(world: World) -> None:
    await world.enrol("jan@example.com")
    await world.enrol("ala@example.com")
    outcome = await world.consumers.consent_events(withdrawn("JAN@example.com"))
    assert outcome == Ack()
    assert await world.statuses("jan@example.com") == ["cancelled", "cancelled"]
    assert {row["reason"] for row in await world.steps("jan@example.com")} == {"unsubscribe"}
    assert await world.statuses("ala@example.com") == ["scheduled", "scheduled"]


async def test_a_withdrawal_recalls_messages_from_the_outbox(world: World) -> None:
    await world.enrol("jan@example.com")
    await world.scheduler().hand_over(now())
    await world.consumers.consent_events(withdrawn("jan@example.com"))
    assert await world.statuses() == ["cancelled", "cancelled"]
    assert await world.outbox("alert.accepted") == []


async def test_a_message_that_the_relay_has_locked_is_not_cancelled(world: World) -> None:
    await world.enrol("jan@example.com")
    await world.scheduler().hand_over(now())
    async with world.engine.begin() as relay:
        await relay.execute(sa.select(tables.outbox_table.c.id).with_for_update())
        await world.consumers.consent_events(withdrawn("jan@example.com"))
    assert await world.statuses() == ["handed_over", "cancelled"]


async def test_a_stop_recalls_a_concurrent_claim_after_its_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.enrol("jan@example.com")
    claiming, go_on = asyncio.Event(), asyncio.Event()
    held = world.scheduler()
    within_cap = held._within_cap

    async def hold(*arguments: Any) -> Any:
        claiming.set()
        await go_on.wait()
        return await within_cap(*arguments)

    monkeypatch.setattr(held, "_within_cap", hold)
    claim = asyncio.create_task(held.hand_over(now()))
    await claiming.wait()
    stop = asyncio.create_task(world.consumers.consent_events(withdrawn("jan@example.com")))
    await world.someone_waits()
    go_on.set()
    await asyncio.gather(claim, stop)
    assert await world.statuses() == ["cancelled", "cancelled"]
    assert await world.outbox("alert.accepted") == []


async def test_concurrent_stops_claims_and_turns_do_not_deadlock(world: World) -> None:
    for turn in range(15):
        email = f"lead{turn}@example.com"
        for session in ("a", "b"):
            await world.say(f"{GOOD_LEAD}, {email}", f"{session}{turn}")
        await world.make_due(email)
        await asyncio.gather(
            world.scheduler(cap=9).hand_over(now()),
            world.scheduler(cap=9).hand_over(now()),
            world.say("a kiedy?", f"a{turn}"),
            world.say(f"to znowu ja, {email}", f"b{turn}"),
            world.consumers.consent_events(withdrawn(email)),
            world.consumers.consent_events(withdrawn(email)),
        )
        await world.consumers.consent_events(withdrawn(email))
        assert set(await world.statuses(email)) == {"cancelled"}
    assert await world.outbox("alert.accepted") == []


async def test_a_duplicate_withdrawal_event_does_not_stop_a_later_enrolment(world: World) -> None:
    message = withdrawn("jan@example.com")
    await world.consumers.consent_events(message)
    await world.enrol("jan@example.com")
    await world.consumers.consent_events(message)
    assert await world.statuses() == ["scheduled", "scheduled"]


async def test_a_withdrawal_of_another_purpose_or_a_grant_stops_nothing(world: World) -> None:
    await world.enrol("jan@example.com")
    await world.consumers.consent_events(withdrawn("jan@example.com", purposes=["survey"]))
    await world.consumers.consent_events(withdrawn("jan@example.com", "consent.granted"))
    assert await world.statuses() == ["scheduled", "scheduled"]


async def ordered(
    world: World, email: str | None, phone: str | None = None, **trace: list[str]
) -> Disposition:
    body = {"email": email, "phone": phone, "erasure_id": ERASURE} | trace
    order = SubjectErased.model_validate(body)
    return await world.consumers.erase(order)


async def erased(world: World, email: str | None, phone: str | None = None) -> Any:
    """Order an erasure as consent does: record the returned trace and order again."""
    assert await ordered(world, email, phone) == Ack()
    traces = await world.outbox("erasure.trace")
    trace = {name: traces[-1][name] for name in ("conversations", "phones")} if traces else {}
    assert await ordered(world, email, phone, **trace) == Ack()
    return trace


async def test_an_erasure_strikes_out_a_mention_and_keeps_who_made_it(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, ewa@example.com")
    await world.say("można też pisać do męża: Marek@Example.com")
    await world.say("mail mojego męża: marek(at)example.com")
    await erased(world, "marek@example.com")
    lead = await world.lead()
    assert lead["known"]["email"] == "ewa@example.com"
    for table in (tables.chat_message, tables.chat_conversations, tables.lead):
        assert "marek" not in str(await world.rows(table)).lower()
    assert {"można też pisać do męża: […]", "[…]"} <= {*await world.said()}
    assert await world.statuses("ewa@example.com") == ["scheduled", "scheduled"]


async def test_nothing_is_erased_before_consent_has_the_trace(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com, 601 234 567")
    for _ in range(2):
        assert await ordered(world, "jan@example.com", phones=["+48601234567"]) == Ack()
    assert await world.outbox("erasure.receipt") == []
    trace = (await world.outbox("erasure.trace"))[-1]
    (conversation,) = trace["conversations"]
    assert trace["phones"] == ["+48601234567"]
    (lead,) = await world.outbox("lead.qualified")
    assert lead["conversation_id"] == conversation


async def test_the_receipt_waits_for_a_message_that_is_being_published(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    async with world.engine.begin() as relay:
        await relay.execute(sa.text("SELECT FROM outbox FOR UPDATE"))
        await ordered(world, "jan@example.com")
        (trace,) = await world.outbox("erasure.trace")
        named = trace["conversations"]
        for _ in range(2):
            outcome = await ordered(world, "jan@example.com", conversations=named)
            assert isinstance(outcome, Retry)
        assert await world.outbox("erasure.receipt") == []
        await relay.execute(sa.text("DELETE FROM outbox WHERE type <> 'erasure.trace'"))
    assert await ordered(world, "jan@example.com", conversations=named) == Ack()
    assert len(await world.outbox("erasure.receipt")) == 1


async def test_a_person_known_by_phone_only_is_erased_by_it(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, 601 234 567")
    await world.say(f"{GOOD_LEAD}, ala@example.com", "s2")
    assert (await erased(world, None, "0048 601 234 567"))["phones"] == ["+48601234567"]
    assert len(await world.outbox("erasure.receipt")) == 1
    assert [lead["email"] for lead in await world.outbox("lead.qualified")] == ["ala@example.com"]
    assert [row["email"] for row in await world.rows(TALKS)] == ["ala@example.com"]


async def test_an_erasure_deletes_all_records(world: World) -> None:
    await world.say(f"{GOOD_LEAD}, jan@example.com")
    await world.say(f"{GOOD_LEAD}, ala@example.com", "s2")
    await world.make_due()
    await world.scheduler().hand_over(now())
    for _ in range(2):
        await erased(world, "jan@example.com")
    receipts = await world.outbox("erasure.receipt")
    assert {receipt["erasure_id"] for receipt in receipts} == {ERASURE}
    assert await world.steps("jan@example.com") == []
    assert [alert["payload"]["to"] for alert in await world.outbox("alert.accepted")] == [
        "ala@example.com"
    ]
    assert [lead["email"] for lead in await world.outbox("lead.qualified")] == ["ala@example.com"]
    assert [row["email"] for row in await world.rows(TALKS)] == ["ala@example.com"]
    assert not any("jan@" in body for body in await world.said())


async def test_an_erasure_includes_conversations_that_mailed_the_address_before(
    world: World,
) -> None:
    await world.enrol("jan@example.com")
    await world.sql("UPDATE chat_conversations SET email = 'new@example.com'")
    await erased(world, "jan@example.com")
    assert await world.rows(TALKS) == []
    assert await world.steps() == []


# --- outcomes ---------------------------------------------------------------------------------


def settled(
    followup_id: uuid.UUID,
    outcome: str,
    message_id: str | None = None,
    *,
    at: datetime | None = None,
    alert_id: uuid.UUID | None = None,
    reason: str | None = None,
) -> Message:
    body = {
        "alert_id": str(alert_id or followup_id), "target": "email", "reference": str(followup_id),
        "outcome": outcome, "reason": reason, "at": (at or now()).isoformat(),
    }  # fmt: skip
    return Message(id=message_id or str(uuid.uuid4()), type="delivery.settled", body=body)


async def handed_over(world: World) -> uuid.UUID:
    [row] = await world.enrol("jan@example.com", steps=1)
    await world.scheduler().hand_over(now())
    followup_id: uuid.UUID = row["id"]
    return followup_id


async def test_duplicate_and_late_outcomes_change_nothing(world: World) -> None:
    followup_id = await handed_over(world)
    duplicate = settled(followup_id, "sent", "m1")
    await asyncio.gather(*(world.consumers.outcomes(duplicate) for _ in range(5)))
    [first] = await world.steps()
    for outcome in ("in_doubt", "cancelled", "failed", "sent"):
        await world.consumers.outcomes(settled(followup_id, outcome))
    assert await world.steps() == [first]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("failed", "in_doubt"), ("failed", "cancelled"), ("failed", "sent"),
        ("in_doubt", "failed"), ("in_doubt", "cancelled"), ("in_doubt", "sent"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("late", [True, False])
async def test_the_later_of_two_outcomes_counts_in_either_order(
    world: World, earlier: str, later: str, *, late: bool
) -> None:
    followup_id = await handed_over(world)
    told = [(earlier, now()), (later, now() + timedelta(seconds=1))]
    for outcome, at in reversed(told) if late else told:
        assert await world.consumers.outcomes(settled(followup_id, outcome, at=at)) == Ack()
    assert await world.statuses() == [later]


async def test_the_cap_counts_from_the_time_of_sending(world: World) -> None:
    first, _ = await world.enrol("jan@example.com")
    await drain(world)
    await world.consumers.outcomes(settled(first["id"], "failed"))
    await world.age(hours=30)
    retried_at = now()
    await world.consumers.outcomes(settled(first["id"], "sent", at=retried_at))
    await world.make_due()
    await drain(world)
    sent, waiting = await world.steps()
    assert (sent["status"], waiting["status"]) == ("sent", "scheduled")
    assert waiting["due_at"] == retried_at + timedelta(hours=24)


async def test_a_step_without_a_hand_over_cannot_become_sent(world: World) -> None:
    [row] = await world.enrol("jan@example.com", seconds=60, steps=1)
    await world.consumers.outcomes(settled(row["id"], "sent"))
    assert await world.statuses() == ["scheduled"]
