"""Correction (Art. 16): in conversations and leads, and staff are told."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from services.followups.store import tables
from services.followups.store.conversations import Subject
from tests.integration.followups.conftest import GOOD_LEAD, World, submissions_of

ANNA, NEW = "anna@example.com", "anna.nowak@example.com"


async def test_a_corrected_person_is_so_everywhere_and_staff_are_told(
    world: World, engine: AsyncEngine
) -> None:
    await world.say(GOOD_LEAD, email=ANNA)
    await world.say("tak")
    right = {"name": "Anna Nowak", "email": NEW, "phone": "+48600700800"}
    await submissions_of(engine).correct(Subject(ANNA), right, {})
    lead = await world.lead()
    assert lead is not None
    assert {name: lead["known"][name] for name in right} == right
    assert "may_mail" not in lead["known"]
    async with engine.connect() as tx:
        contacts = (await tx.execute(sa.select(tables.lead_contact.c.contact))).scalars().all()
        (found,) = await tx.execute(sa.select(tables.chat_conversations))
    assert sorted(contacts) == [f"email:{NEW}", "phone:+48600700800"]
    assert (found.email, found.state["facts"]["name"]) == (NEW, "Anna Nowak")
    withdrawal = (await world.outbox("withdrawal.record"))[-1]
    assert (withdrawal["email"], withdrawal["source"]) == (ANNA, "correction")
    await world.tell_staff(after=3600)
    assert (await world.outbox("lead.updated"))[-1]["email"] == NEW
