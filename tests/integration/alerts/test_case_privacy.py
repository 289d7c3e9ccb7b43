"""A case is exported, erased and purged with its data subject's other data."""

from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.cases.timer import Updates
from services.alerts.rules.case import Verb
from services.alerts.rules.subjects import Kind, Subjects
from services.alerts.store.cases import privacy as case_privacy
from services.alerts.upkeep import retention
from tests.integration.alerts.cases import DELIVERED, Cases, answer
from tests.integration.alerts.conftest import ANNA, CHANNELS, SUBJECT_KEYS, Consent, StartAlerts
from tests.integration.alerts.test_case_http import lead, sections
from tests.support.eventually import eventually

DAY = 86400.0
LEAD = {"payload": {"text": f"write to {ANNA}", "score": 5}}


@pytest.fixture
def subject(engine: AsyncEngine) -> Cases:
    return Cases(engine)


async def erase(subject: Cases, case_id: UUID) -> bool:
    async with subject.engine.begin() as tx:
        return await case_privacy.erase(tx, case_id)


async def test_an_erased_case_is_cancelled_and_says_nothing_any_more(subject: Cases) -> None:
    case_id = await subject.accept(**LEAD, dedup_key=ANNA)
    await subject.tick()
    await subject.answer(case_id, answer(Verb.RELEASE))
    await subject.execute(
        "INSERT INTO case_link VALUES ('\\x00', :id, 'anna', 0, now() + interval '1 day')",
        id=case_id,
    )
    assert await erase(subject, case_id)
    row = await subject.sees(case_id, state="cancelled", reason="erased")
    assert (row.payload, row.dedup_key, row.subjects) == (None, None, [])
    assert [step.state for step in await subject.steps(case_id)] == ["discarded"]
    assert await subject.rows("SELECT * FROM case_link") == []
    assert await subject.balanced()


async def test_an_answered_case_stays_answered_without_the_persons_words(subject: Cases) -> None:
    case_id = await subject.accept(**LEAD)
    await subject.answer(case_id, answer(Verb.LOST, reason=f"{ANNA} went elsewhere"))
    await erase(subject, case_id)
    await subject.sees(case_id, state="answered", owner="anna", payload=None)
    assert [each.reason for each in await subject.rows("SELECT reason FROM case_answer")] == [None]
    assert [each.want for each in await subject.rows("SELECT want FROM case_place")] == [2]


async def test_an_erasure_waits_until_changeable_messages_are_overwritten(subject: Cases) -> None:
    case_id = await subject.accept(**LEAD)
    own = await subject.own(case_id)
    await subject.settle(await subject.claim(own), DELIVERED)
    await subject.execute("""UPDATE case_place SET shown = 0, receipt = '{"ts": "1"}'""")
    assert not await erase(subject, case_id)
    await Updates(subject.engine, frozenset(CHANNELS)).run()
    assert not await erase(subject, case_id)  # the update is on its way
    (place,) = await subject.rows("SELECT * FROM case_place")
    assert place.want == 1  # asked again, and not told again
    await subject.execute("UPDATE case_place SET shown = want")
    assert await erase(subject, case_id)
    assert (await subject.case(case_id)).subjects == []


async def test_cases_of_a_person_are_found_by_their_hashes(subject: Cases) -> None:
    mine = await subject.accept(**LEAD)
    await subject.accept(payload={"text": "other@example.com"})
    hashes = Subjects(SUBJECT_KEYS).hashes(Kind.EMAIL, [ANNA])
    async with subject.engine.connect() as tx:
        assert [row.alert_id for row in await case_privacy.page(tx, hashes, 0)] == [mine]
        assert await case_privacy.page(tx, hashes, 1) == []
        assert len(await case_privacy.page(tx, None, 0)) == 2


async def test_payloads_go_after_their_time_and_cases_after_a_year(subject: Cases) -> None:
    old = await subject.accept(**LEAD)
    await subject.run_out(old)
    ids = [await subject.accept(**LEAD) for _ in range(2)]
    for case_id in ids:
        await subject.take(case_id)
    ended = "UPDATE alert_case SET ended_at = now() - make_interval(days => :days)"
    for case_id, days in ((old, 366), (ids[0], 31), (ids[1], 29)):
        await subject.execute(f"{ended} WHERE alert_id = :id", id=case_id, days=days)
    await retention.run(subject.engine, delivered=DAY, payloads=30 * DAY)
    rows = {row.alert_id: row for row in await subject.rows("SELECT * FROM alert_case")}
    assert rows.keys() == set(ids)
    assert (rows[ids[0]].payload, rows[ids[0]].subjects) == (None, [])
    assert rows[ids[1]].payload is not None
    found = await subject.check()
    expected = {"ok": True, "opened": 3, "answered": 2, "unanswered": 1}
    assert found | expected == found


async def test_a_case_that_is_open_is_never_purged(subject: Cases) -> None:
    case_id = await subject.accept(**LEAD)
    await subject.execute("UPDATE alert_case SET opened_at = now() - interval '9 years'")
    await retention.run(subject.engine, delivered=DAY, payloads=30 * DAY)
    assert (await subject.case(case_id)).payload is not None


async def test_the_export_shows_a_case_and_the_erasure_ends_it(
    alerts: StartAlerts, consent: Consent
) -> None:
    service = await alerts(sections=sections(within="1h"))
    cases = Cases(service.engine)
    case_id = await lead(service, text=f"write to {ANNA}")
    await eventually(lambda: cases.rows("SELECT 1 FROM alert_case"), 20)
    await service.until(str(case_id), "delivered")
    await service.until(str(case_id), "delivered", "monday")
    await cases.take(case_id)
    (held,) = await consent.held("cases")
    assert (held["id"], held["state"], held["owner"]) == (str(case_id), "answered", "Anna Nowak")
    assert ANNA in held["payload"]["text"]
    assert [each["answer"] for each in held["answers"]] == ["taken"]
    # purged: the case outlives it
    await service.execute("DELETE FROM delivery")
    await service.execute("UPDATE ledger_total SET accepted = 0")
    assert ANNA in await consent.addresses()
    await consent.erased()
    row: Any = await cases.case(case_id)
    assert (row.state, row.payload) == ("answered", None)
    assert await consent.addresses() == []


async def test_a_case_about_somebody_else_loses_only_the_mention(
    alerts: StartAlerts, consent: Consent
) -> None:
    service = await alerts(sections=sections(within="1h"))
    cases = Cases(service.engine)
    case_id = await lead(service, text=f"friend: {ANNA}", email="ewa@example.com")
    await service.until(str(case_id), "delivered")
    await eventually(lambda: cases.rows("SELECT 1 FROM case_place WHERE shown IS NOT NULL"), 20)
    await cases.answer(case_id, answer(Verb.LOST, reason=f"asked {ANNA} and Ewa"))
    assert await consent.held("cases") == []
    await consent.erased()
    row: Any = await cases.case(case_id)
    assert (row.state, row.payload["text"], len(row.subjects)) == ("answered", "friend: […]", 1)
    (told,) = await cases.rows("SELECT reason FROM case_answer")
    assert told.reason == "asked […] and Ewa"


async def test_a_message_with_a_mention_is_written_again_without_it(subject: Cases) -> None:
    case_id = await subject.accept(payload={"text": f"friend: {ANNA}", "email": "ewa@example.com"})
    own = await subject.own(case_id)
    await subject.settle(await subject.claim(own), DELIVERED)
    await subject.execute("""UPDATE case_place SET shown = 0, receipt = '{"ts": "1"}'""")
    hashes = Subjects(SUBJECT_KEYS)
    gone = hashes.hashes(Kind.EMAIL, [ANNA])

    async def struck() -> bool:
        async with subject.engine.begin() as tx:
            return await case_privacy.strike(tx, case_id, gone, partial(hashes.strike, gone=gone))

    for _ in range(2):
        assert not await struck()
    (place,) = await subject.rows("SELECT * FROM case_place")
    assert place.want == 1
    await subject.execute("UPDATE case_place SET shown = want")
    assert await struck()
    row: Any = await subject.case(case_id)
    assert (row.state, row.payload["text"], len(row.subjects)) == ("open", "friend: […]", 1)
