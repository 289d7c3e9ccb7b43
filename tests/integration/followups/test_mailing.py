"""How the consent of a lead stands: a yes here waits until consent says that it counts."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.followups.conftest import CONFIG, GOOD_LEAD, World
from tests.integration.followups.test_scheduler import withdrawn

ANNA = "anna@example.com"
GRANTED, WITHDRAWN = "consent.granted", "consent.withdrawn"
PATIENCE = CONFIG.lead.update_after.total_seconds()


async def hear(world: World, kind: str, *, seconds: float = 0) -> None:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    await world.consumers.consent_events(withdrawn(ANNA, kind, at=at.isoformat()))


async def told(world: World) -> list[Any]:
    """Return what each event to staff says of it, the oldest first."""
    events = [*await world.outbox("lead.qualified"), *await world.outbox("lead.updated")]
    return [(event["may_mail"], event["changes"]) for event in events]


async def may_mail(world: World) -> str | None:
    lead = await world.lead()
    known: dict[str, Any] = lead["known"]
    return known.get("may_mail")


async def agreed(world: World) -> None:
    await world.say(GOOD_LEAD, email=ANNA)
    await world.say("tak")
    await world.tell_staff(after=PATIENCE + 1)


async def test_a_yes_in_the_chat_waits_until_consent_says_that_it_counts(world: World) -> None:
    await agreed(world)
    assert await may_mail(world) == "waiting"
    assert [said for said, _ in await told(world)][-1] == "waiting"
    await hear(world, GRANTED)
    assert await may_mail(world) == "given"
    await world.tell_staff(after=PATIENCE + 1)
    assert (await told(world))[-1] == ("given", ["may_mail"])
    await world.say("Dziękuję, a kiedy przyjedziecie?")
    assert await may_mail(world) == "given"


async def test_a_withdrawal_by_a_mailed_link_is_told_to_staff_who_were_told_otherwise(
    world: World,
) -> None:
    await agreed(world)
    await hear(world, GRANTED)
    await world.tell_staff(after=PATIENCE + 1)
    await hear(world, WITHDRAWN)
    assert await may_mail(world) == "refused"
    await world.tell_staff(after=PATIENCE + 1)
    assert (await told(world))[-1] == ("refused", ["may_mail"])


async def test_the_newest_word_of_consent_counts_in_whichever_order_it_comes(world: World) -> None:
    await agreed(world)
    await hear(world, WITHDRAWN, seconds=2)
    await hear(world, GRANTED, seconds=1)
    assert await may_mail(world) == "refused"
    await hear(world, GRANTED, seconds=3)
    assert await may_mail(world) == "given"


async def test_a_no_in_the_chat_is_a_refusal_and_no_news_when_consent_says_so(world: World) -> None:
    await world.say(GOOD_LEAD, email=ANNA)
    await world.say("nie")
    await world.tell_staff(after=PATIENCE + 1)
    assert (await told(world))[-1][0] == "refused"
    before = len(await told(world))
    await hear(world, WITHDRAWN)
    await world.tell_staff(after=PATIENCE + 1)
    assert len(await told(world)) == before


async def test_somebody_who_never_agreed_and_wants_no_mails_is_no_news(world: World) -> None:
    await world.say(GOOD_LEAD, email=ANNA)
    await world.tell_staff(after=PATIENCE + 1)
    before = await told(world)
    assert before[-1][0] is None
    await hear(world, WITHDRAWN)
    await world.tell_staff(after=PATIENCE + 1)
    assert (await may_mail(world), await told(world)) == ("refused", before)


async def test_another_address_begins_without_the_consent_of_the_first(world: World) -> None:
    await agreed(world)
    await hear(world, GRANTED)
    await world.say("przepraszam, mój adres to jan@example.com")
    assert await may_mail(world) in {None, "waiting"}
