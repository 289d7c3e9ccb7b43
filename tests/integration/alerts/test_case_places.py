"""Every place ends up saying how its case stands (docs/protocols.md, D, 8; TELL in answer.pml)."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.cases.timer import Updates
from services.alerts.delivery import case_messages
from services.alerts.rules.case import Ask, Verb
from services.alerts.rules.delivery import Claimed
from services.alerts.store.cases import places
from services.alerts.store.cases import privacy as case_privacy
from tests.integration.alerts.cases import (
    DELIVERED,
    FAILED,
    NEVER,
    RULES,
    Cases,
    answer,
    soon,
    with_policy,
)
from tests.integration.alerts.conftest import CHANNELS

pytestmark = pytest.mark.promise("P9")


class Places(Cases):
    """Cases whose messages are written and recorded as the worker does it."""

    async def update(self) -> None:
        await Updates(self.engine, frozenset(CHANNELS)).run()

    async def place(self, alert_id: UUID, target: str = "slack") -> Any:
        (row,) = await self.rows(
            "SELECT * FROM case_place WHERE alert_id = :id AND target = :target",
            id=alert_id,
            target=target,
        )
        return row

    async def updates(self) -> list[Any]:
        return await self.rows(
            "SELECT alert_id, target, state FROM delivery WHERE event_type = 'case.update'"
            " ORDER BY created_at"
        )

    async def write(self, job: Claimed) -> tuple[Claimed, int]:
        job, want = await case_messages.written(self.engine, RULES, job.target, job)
        assert want is not None
        return job, want

    async def land(self, job: Claimed, want: int | None = None) -> None:
        """Record a delivery and what its place shows; for an overtaken worker, that it was late."""
        state = await self.settle(job, DELIVERED)
        async with self.engine.begin() as tx:
            place = case_messages.shown_at(job)
            if state is None:
                await places.run(tx, "rearm", alert_id=place, target=job.target, receipt=None)
            elif want is not None:
                await places.run(
                    tx, "shown", alert_id=place, target=job.target, want=want, receipt=None
                )

    async def own_delivered(self, case_id: UUID) -> None:
        await self.settle(await self.claim(await self.own(case_id)), DELIVERED)

    async def told(self, by: str = "ewa") -> tuple[UUID, Any]:
        """Return a case that was shown and then taken, and the update that says so."""
        case_id = await self.accept()
        await self.own_delivered(case_id)
        await self.take(case_id, by)
        await self.update()
        (update,) = await self.updates()
        return case_id, update


@pytest.fixture
def subject(engine: AsyncEngine) -> Places:
    return Places(engine)


async def test_a_place_is_told_once_who_has_it(subject: Places) -> None:
    case_id = await subject.accept()
    await subject.own_delivered(case_id)
    await subject.update()
    assert await subject.updates() == []  # it shows the question, as it should
    await subject.take(case_id)
    await subject.update()
    await subject.update()
    (update,) = await subject.updates()
    job, want = await subject.write(await subject.claim(update))
    assert "taken by Anna Nowak" in job.payload["text"]
    await subject.land(job, want)
    await subject.update()
    assert len(await subject.updates()) == 1
    place = await subject.place(case_id)
    assert (place.shown, place.receipt) == (1, None)
    assert await subject.balanced()


async def test_no_update_starts_while_an_attempt_is_in_flight_there(subject: Places) -> None:
    """Rule WAIT."""
    case_id, step = await subject.asked()
    job = await subject.claim(step)
    await subject.take(case_id, "ewa")
    await subject.update()
    assert await subject.updates() == []
    await subject.settle(job, FAILED)  # perhaps it was shown all the same
    await subject.update()
    assert [row.target for row in await subject.updates()] == ["slack"]


async def test_the_person_who_answered_is_not_told(subject: Places) -> None:
    case_id, step = await subject.asked()  # asks Anna
    job, want = await subject.write(await subject.claim(step))
    await subject.land(job, want)
    await subject.take(case_id, "anna")
    await subject.update()
    assert await subject.updates() == []
    place = await subject.place(step.alert_id)
    assert place.shown == place.want == 1


async def test_one_sms_follows_each_answer(engine: AsyncEngine) -> None:
    """Anna and Ewa were asked by SMS: Ewa is not told of what she did herself."""
    chain = (Ask("sms", 60.0, call="sales"), Ask("sms", 60.0, person="ewa"))
    subject = Places(engine, with_policy(chain=chain))
    words = {"text": "jan@example.com", "score": 90, "staff_language": "pl"}
    case_id = await subject.accept(payload=words, dedup_key="k", source="a")
    await subject.tick(2)
    asked = await subject.steps(case_id)
    for step in asked:
        await subject.land(*await subject.write(await subject.claim(step)))
    said: list[tuple[str | None, str]] = []

    async def follow() -> list[tuple[str | None, str]]:
        """Send what is due, and return what was sent since, and to whom."""
        said.clear()
        await subject.update()
        await subject.update()
        for update in await subject.updates():
            if update.state == "pending" and update.target == "sms":
                job, want = await subject.write(await subject.claim(update))
                await subject.land(job, want)
                said.append((job.payload["to"], job.payload["text"]))
        return said

    anna, ewa = (RULES.people[name].phone for name in ("anna", "ewa"))
    await subject.take(case_id, "ewa")
    assert [to for to, _ in await follow()] == [anna]
    await subject.execute("UPDATE alert_case SET next_at = now(), reminded = true")
    await subject.answers.give_back(case_id)  # which its owner has not said, but the timer
    assert {to for to, _ in await follow()} == {anna, ewa}
    await subject.take(case_id, "anna")
    ((to, text),) = await follow()
    assert to == ewa
    assert text.startswith("Lead, 90 pkt: ma Anna Nowak od ")
    await subject.answer(case_id, answer(Verb.RELEASE))
    assert [to for to, _ in await follow()] == [ewa]
    await subject.answer(case_id, answer(Verb.LATER, "ewa", until=soon()))
    assert [to for to, _ in await follow()] == [anna]
    await subject.take(case_id, "anna")
    assert [to for to, _ in await follow()] == [ewa]
    await subject.accept(dedup_key="k", source="a", resolved=True)
    ((to, text),) = await follow()
    assert (to, text.rpartition(": ")[2]) == (anna, "ustapilo samo")
    await subject.answer(case_id, answer(Verb.DONE))
    async with engine.begin() as tx:
        await case_privacy.erase(tx, case_id)
    assert await follow() == []


async def test_an_update_is_written_from_the_case_as_it_stands_at_its_claim(
    subject: Places,
) -> None:
    """Rule NOW."""
    case_id, update = await subject.told()
    await subject.answer(case_id, answer(Verb.RELEASE, "ewa"))
    await subject.take(case_id, "anna")
    job, want = await subject.write(await subject.claim(update))
    assert "taken by Anna Nowak" in job.payload["text"]
    await subject.land(job, want)
    await subject.update()
    assert len(await subject.updates()) == 1  # and it need not be told again


async def test_the_next_update_waits_for_the_end_of_the_last(subject: Places) -> None:
    case_id, update = await subject.told()
    job, want = await subject.write(await subject.claim(update))
    await subject.answer(case_id, answer(Verb.RELEASE, "ewa"))
    await subject.update()
    assert len(await subject.updates()) == 1
    await subject.land(job, want)
    await subject.update()
    assert len(await subject.updates()) == 2


async def test_an_overtaken_worker_makes_its_place_due_again(subject: Places) -> None:
    """Rules LATE, TCAS, REARM and STICKY: a late message may have overwritten a newer one."""
    case_id, update = await subject.told()
    late, old = await subject.write(await subject.claim(update, lease=0))
    newer, want = await subject.write(await subject.claim(update, take_over=True))
    await subject.land(late, old)
    assert (await subject.place(case_id)).shown is None  # only the holder says what it shows
    await subject.land(newer, want)  # does not undo that it is due again
    place = await subject.place(case_id)
    assert (place.want, place.shown) == (2, 1)
    await subject.update()
    assert len(await subject.updates()) == 2


async def test_a_message_that_lands_after_a_newer_one_makes_its_place_due_again(
    subject: Places,
) -> None:
    """Its retry and an update were on their way together."""
    case_id, step = await subject.asked()
    await subject.settle(await subject.claim(step), FAILED)  # perhaps it was shown all the same
    await subject.run_out(case_id)
    await subject.update()
    (update,) = await subject.updates()
    older = await subject.write(await subject.claim(step))
    await subject.take(case_id, "ewa")
    newer = await subject.write(await subject.claim(update))
    await subject.land(*newer)
    await subject.update()
    assert len(await subject.updates()) == 1
    await subject.land(*older)
    await subject.update()
    _, again = await subject.updates()
    job, want = await subject.write(await subject.claim(again))
    assert "taken by Ewa Lis" in job.payload["text"]
    await subject.land(job, want)
    await subject.update()
    assert len(await subject.updates()) == 2


async def test_an_update_that_failed_is_not_repeated_until_there_is_news(subject: Places) -> None:
    case_id, update = await subject.told()
    await subject.settle(await subject.claim(update), NEVER)
    await subject.update()
    assert len(await subject.updates()) == 1
    assert (await subject.check())["updates_overdue"] == 0
    await subject.answer(case_id, answer(Verb.RELEASE, "ewa"))
    await subject.update()
    assert len(await subject.updates()) == 2


async def test_a_place_that_no_update_corrects_is_overdue(subject: Places) -> None:
    case_id = await subject.accept()
    await subject.own_delivered(case_id)
    await subject.take(case_id)
    await subject.execute("UPDATE case_place SET wanted_at = now() - interval '11 minutes'")
    found = await subject.check()
    assert (found["ok"], found["updates_overdue"]) == (False, 1)


async def test_a_purged_delivery_counts_as_shown(subject: Places) -> None:
    case_id = await subject.accept()
    await subject.own_delivered(case_id)
    await subject.execute("DELETE FROM delivery WHERE state = 'delivered'")
    await subject.take(case_id)
    await subject.update()
    assert len(await subject.updates()) == 1
