"""Correction (Art. 16): in conversations and leads, and staff are told."""

from services.followups.store import tables
from services.followups.store.conversations import Subject
from tests.integration.followups.conftest import GOOD_LEAD, World

ANNA, NEW = "anna@example.com", "anna.nowak@example.com"


async def test_a_corrected_person_is_so_everywhere_and_staff_are_told(world: World) -> None:
    await world.say(GOOD_LEAD, email=ANNA)
    await world.say("tak")
    right = {"name": "Anna Nowak", "email": NEW, "phone": "+48600700800"}
    await world.forms.correct(Subject(ANNA), right, {})
    lead = await world.lead()
    assert {name: lead["known"][name] for name in right} == right
    assert "may_mail" not in lead["known"]
    contacts = [row["contact"] for row in await world.rows(tables.lead_contact, "contact")]
    assert contacts == [f"email:{NEW}", "phone:+48600700800"]
    [talk] = await world.rows(tables.chat_conversations)
    assert (talk["email"], talk["state"]["facts"]["name"]) == (NEW, "Anna Nowak")
    withdrawal = (await world.outbox("withdrawal.record"))[-1]
    assert (withdrawal["email"], withdrawal["source"]) == (ANNA, "correction")
    await world.tell_staff(after=3600)
    assert (await world.outbox("lead.updated"))[-1]["email"] == NEW
