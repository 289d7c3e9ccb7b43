"""What followups says for subscriptions, in the transaction that acts; as the contracts have it."""

import uuid
from typing import Any

import pytest

from libs.common.messaging.broker import Message
from services.followups.store import steps as store
from services.followups.store import tables
from tests.integration.followups.conftest import MAILED, MailBack, World
from tests.integration.followups.test_lead_acts import ANNA, BATH
from tests.integration.followups.test_submissions import RICH, given
from tests.support.contracts import golden

pytestmark = pytest.mark.promise("P15")


def matches(body: dict[str, Any], event_type: str) -> None:
    """A reader takes each field of the contract, and there are no others."""
    assert body.keys() == golden(f"events/{event_type}")["occurred"].keys()


async def count(world: World) -> int:
    rows = await world.rows(tables.outbox_table)
    return len([row for row in rows if row["routing_key"] == "event.occurred"])


async def test_an_act_that_changes_the_state_of_a_lead_says_so_and_no_other_act_does(
    world: World,
) -> None:
    await world.say(BATH)
    (lead,) = await world.listed()
    await world.act(lead["id"], "notes", {"text": "Woli po 16"})
    assert await count(world) == 0
    await world.act(lead["id"], "owner", {"owner": "Ewa Lis"})
    await world.act(lead["id"], "state", {"state": "won"}, by="Ewa Lis")
    (answered,), (closed,) = [await world.outbox(f"lead.{each}") for each in ("answered", "closed")]
    for body, event_type in ((answered, "lead.answered"), (closed, "lead.closed")):
        matches(body, event_type)
        assert body["lead_id"] == lead["id"]
    assert (answered["state"], closed["state"], closed["by"]) == ("taken", "won", "Ewa Lis")
    await world.act(lead["id"], "undo", {})
    assert len(await world.outbox("lead.answered")) == 2


async def test_a_refused_act_says_nothing(world: World) -> None:
    await world.say(BATH)
    (lead,) = await world.listed()
    await world.act(lead["id"], "state", {"state": "won", "version": 99}, status=409)
    assert await count(world) == 0


@pytest.mark.parametrize("suspicion", [None, "too fast"])
async def test_a_form_that_was_stored_says_so_under_an_id_of_its_own(
    world: World, suspicion: str | None
) -> None:
    form = given(ANNA, facts=RICH, suspicion=suspicion)
    subject = world.forms
    await subject.take(form)
    await subject.take(form)  # a second copy
    said = await world.outbox("form.submitted")
    assert len(said) == (suspicion is None)
    for body in said:
        assert body.keys() <= {*golden("events/form.submitted")["occurred"], "name", "phone"}
        assert (body["email"], body["form"], body["values"]) == (ANNA, "contact", form.fields)
    ids = [row["message_id"] for row in await world.rows(tables.outbox_table)]
    assert len(set(ids)) == len(ids)


async def test_a_follow_up_that_left_says_so_once(world: World) -> None:
    await world.say(f"remont łazienki, 6 m2, 40 tys., Gdynia, {MAILED}")
    await world.make_due()
    first = (await world.steps(MAILED))[0]
    async with world.engine.begin() as tx:
        await store.claim(tx, 10)
    (handed, *_) = await world.steps(MAILED)
    settled = {
        "alert_id": str(handed["message_id"] or handed["id"]), "reference": str(first["id"]),
        "outcome": "sent", "reason": None, "at": "2026-11-25T10:15:30+00:00",
    }  # fmt: skip
    for _ in range(2):
        message = Message(str(uuid.uuid4()), "delivery.settled", settled)
        await world.consumers.outcomes(message)
    (sent,) = await world.outbox("followup.sent")
    matches(sent, "followup.sent")
    assert sent["email"] == MAILED


@pytest.mark.parametrize(
    ("mail", "event_type"),
    [("postfix", "followup.bounced"), ("reply-gmail-pl", "followup.replied")],
)
async def test_mail_that_comes_back_says_so_and_ends_the_rest(
    world: World, mail: str, event_type: str
) -> None:
    mails = MailBack(world)
    await mails.begin()
    await mails.come(mail)
    (body,) = await world.outbox(event_type)
    matches(body, event_type)
    assert body["followup_id"] == str(mails.step)
    (ended,) = await world.outbox("followup.ended")
    matches(ended, "followup.ended")
    assert ended["email"] == MAILED


async def test_an_erasure_takes_back_what_is_still_in_the_outbox(world: World) -> None:
    mails = MailBack(world)
    await mails.begin()
    await mails.come("postfix")
    assert await count(world) == 2
    await world.erase(MAILED)
    assert await count(world) == 0
