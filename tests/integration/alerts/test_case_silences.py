"""A silence defers alerts and drops none (docs/protocols.md, D, step 16)."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.alerts.messages import OnceTerms
from services.alerts.rules.case import Verb
from services.alerts.store.cases import silences
from services.alerts.store.ledger import intake as ledger
from tests.integration.alerts.cases import POLICY, RULES, Cases, answer
from tests.integration.alerts.conftest import StartAlerts, waits_for_a_row
from tests.integration.alerts.test_case_http import PEOPLE, call
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P9")

KIND = "event_type=slack_alert"


class Silenced(Cases):
    async def silence(self, hours: float = 2, *matchers: str, **fields: Any) -> int:
        ends = datetime.now(UTC) + timedelta(hours=hours)
        begins = min(ends, datetime.now(UTC)) - timedelta(seconds=1)
        given = {"begins": begins, "ends": ends, "by": "ola", "why": "a repair", "critical": True}
        async with self.engine.begin() as tx:
            number = await silences.add(tx, matchers=list(matchers) or [KIND], **given | fields)
        assert number is not None
        return number

    async def end(self, number: int) -> int | None:
        async with self.engine.begin() as tx:
            return await silences.end(tx, number)

    async def comes(self, **fields: Any) -> UUID:
        return await self.accept(event_type="slack_alert", source="gateway", **fields)

    async def own(self, alert_id: UUID) -> list[Any]:
        return await self.rows(
            "SELECT state, reason, error FROM delivery WHERE alert_id = :id", id=alert_id
        )


@pytest.fixture
def subject(engine: AsyncEngine) -> Silenced:
    policies = {"slack_alert": POLICY, "lead.qualified": POLICY}
    return Silenced(engine, replace(RULES, policies=policies))


async def test_a_silenced_alert_is_not_sent_and_its_case_waits_for_the_end(
    subject: Silenced,
) -> None:
    number = await subject.silence()
    case_id = await subject.comes()
    assert await subject.own(case_id) == [("discarded", "silenced", f"silence {number}")]
    (delivery,) = await subject.rows("SELECT alert_id, target FROM delivery")
    assert not await subject.claimable(delivery)
    assert await subject.rows("SELECT 1 FROM escalation") == []
    row = await subject.case(case_id)
    (silence,) = await subject.rows("SELECT ends FROM silence")
    assert (row.state, row.silence, row.next_at) == ("open", number, silence.ends)
    assert (await subject.check())["ok"]
    assert await subject.balanced()


async def test_a_silence_of_the_release_before_counts_as_it_did(subject: Silenced) -> None:
    await subject.execute(
        "INSERT INTO silence (event_type, severity, ends, by, why, begins) VALUES ('slack_alert',"
        " 'critical', now() + interval '1 h', 'ola', 'a repair', now() - interval '1 s')"
    )
    assert (await subject.own(await subject.comes(severity="critical")))[0].state == "discarded"
    assert (await subject.own(await subject.comes()))[0].state == "pending"


async def test_an_alert_that_waited_for_us_is_silenced_as_when_it_was_accepted(
    subject: Silenced,
) -> None:
    await subject.silence(-1, begins=datetime.now(UTC) - timedelta(hours=2))
    then = datetime.now(UTC) - timedelta(hours=1.5)
    case_id = await subject.comes(accepted_at=then)
    assert (await subject.own(case_id))[0].state == "discarded"
    await subject.timer.run()  # its silence is over
    assert len(await subject.steps(case_id)) == 1


async def test_a_weekly_silence_puts_off_to_the_end_of_its_period(subject: Silenced) -> None:
    now = datetime.now(UTC)
    clocks = {
        "begins": f"{now - timedelta(hours=2):%H:%M}",
        "ends": f"{now + timedelta(hours=2):%H:%M}",
    }
    weekly = clocks | {"days": [1, 2, 3, 4, 5, 6, 7], "zone": "UTC"}
    await subject.silence(24 * 30, weekly=weekly)
    case = await subject.case(await subject.comes())
    assert timedelta(hours=1.9) < case.next_at - now < timedelta(hours=2)
    other = weekly | {"days": [now.isoweekday() % 7 + 2 if now.isoweekday() < 6 else 3]}
    await subject.execute("DELETE FROM silence")
    await subject.silence(24 * 30, weekly=other)
    assert (await subject.own(await subject.comes()))[0].state == "pending"


async def test_of_several_the_last_to_end_counts(subject: Silenced) -> None:
    await subject.silence(1)
    number = await subject.silence(3)
    await subject.silence(2)
    assert (await subject.case(await subject.comes())).silence == number


async def test_an_alert_that_nobody_is_asked_about_is_kept_and_opens_no_case(
    subject: Silenced,
) -> None:
    number = await subject.silence()
    alert_id = await subject.comes(target="monday")
    assert await subject.own(alert_id) == [("discarded", "silenced", f"silence {number}")]
    assert await subject.rows("SELECT 1 FROM alert_case") == []
    assert await subject.balanced()


async def test_one_target_of_an_alert_is_silenced(subject: Silenced) -> None:
    """Its case asks as ever: the others show it."""
    subject.intake._config.routes["slack_alert"] = ("slack", "monday")
    await subject.silence(2, "target=monday")
    case_id = await subject.comes()
    assert sorted(row.state for row in await subject.own(case_id)) == ["discarded", "pending"]
    assert (await subject.case(case_id)).silence is None


async def test_the_end_of_what_was_silenced_is_not_told(subject: Silenced) -> None:
    number = await subject.silence()
    fired = {"event_type": "slack_alert", "source": "gateway", "target": "monday"}
    await subject.accept(**fired, dedup_key="pump 7")
    before = await subject.end(number)
    over = await subject.accept(**fired, dedup_key="pump 7", resolved=True)
    assert (before, await subject.own(over)) == (0, [("discarded", "silenced", "silenced")])


async def test_the_end_of_what_was_told_is_told_in_a_silence(subject: Silenced) -> None:
    fired = {"event_type": "slack_alert", "source": "gateway", "target": "monday"}
    await subject.accept(**fired, dedup_key="pump 7")
    await subject.silence()
    await subject.accept(**fired, dedup_key="pump 7")
    over = await subject.accept(**fired, dedup_key="pump 7", resolved=True)
    assert (await subject.own(over))[0].state == "pending"


@pytest.mark.parametrize("event_type", ["lead.qualified", "followup", "escalation", "staff.mail"])
async def test_neither_a_lead_nor_a_mail_of_our_own_is_silenced(
    subject: Silenced, event_type: str
) -> None:
    await subject.silence(2, "event_type=~.*")
    once = {"address": "a@example.com", "purpose": "marketing", "reference": "r"}
    fields = {"once": OnceTerms(**once)} if event_type == "followup" else {}
    alert_id = await subject.accept(event_type=event_type, **fields)
    assert {row.state for row in await subject.own(alert_id)} == {"pending"}


async def test_what_resolves_meanwhile_is_not_asked_about(subject: Silenced) -> None:
    await subject.silence()
    case_id = await subject.comes(dedup_key="pump 7")
    await subject.comes(dedup_key="pump 7", resolved=True)
    await subject.sees(case_id, state="cancelled", reason="resolved")


async def test_a_silence_that_is_ended_makes_its_cases_due(subject: Silenced) -> None:
    number = await subject.silence()
    due, put_off, taken = [await subject.comes() for _ in range(3)]
    until = datetime.now(UTC) + timedelta(hours=1)
    await subject.answer(put_off, answer(Verb.LATER, until=until))
    await subject.take(taken)
    assert await subject.end(number) == 1
    assert await subject.end(number) is None
    await subject.timer.run()
    assert len(await subject.steps(due)) == 1
    assert (await subject.case(put_off)).next_at == until
    assert (await subject.case(taken)).state == "answered"


async def test_a_case_that_is_just_being_opened_is_not_missed_by_the_end(
    subject: Silenced, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await subject.silence()
    ending: list[asyncio.Task[int | None]] = []
    accept = ledger.accept

    async def slow(*given: Any) -> Any:  # the silence is seen, the case not opened yet
        ending.append(asyncio.create_task(subject.end(number)))
        await eventually(lambda: waits_for_a_row(subject.engine))
        return await accept(*given)

    monkeypatch.setattr("services.alerts.intake.intake.accept", slow)
    case_id = await subject.comes()
    assert await ending[0] == 1
    assert (await subject.case(case_id)).next_at <= datetime.now(UTC)


async def test_a_message_that_comes_again_changes_nothing(subject: Silenced) -> None:
    number = await subject.silence()
    case_id = await subject.comes()
    await subject.end(number)
    before = await subject.case(case_id)
    await subject.comes(id=case_id)
    assert await subject.case(case_id) == before
    assert (await subject.own(case_id))[0].state == "discarded"
    assert await subject.balanced()


async def test_a_silence_is_made_listed_and_ended_over_http(alerts: StartAlerts) -> None:
    ask = {"to": "sms", "person": "anna", "wait": "1h"}
    policy = {"asks": ["slack"], "within": "1h", "chain": [ask]}
    sections = {"answers": {"slack_alert": policy, "lead.qualified": policy}, "people": PEOPLE}
    subject = await alerts(sections=sections)
    ends = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    body: dict[str, Any] = {"matchers": [KIND], "ends": ends, "why": "a repair"}
    path = "/api/silences"
    assert (await call(subject, "POST", path, body))[0] == 401
    status, made = await call(subject, "POST", path, body, caller="admin")
    assert status == 200
    _, listed = await call(subject, "GET", path, caller="admin")
    names = ("id", "matchers", "critical", "by", "why", "weekly")
    assert [tuple(each[name] for name in names) for each in listed["items"]] == [
        (made["id"], [KIND], False, "tester", "a repair", None)
    ]
    assert listed["items"][0]["active_until"] == listed["items"][0]["ends"]
    alert_id = await subject.accept("slack_alert")
    await subject.until(alert_id, "discarded")
    asked = {"matchers": ["payload.text=~.*", "target=slack"]}
    _, seen = await call(subject, "POST", f"{path}/preview", asked, caller="admin")
    assert (seen["matched"], seen["examined"], seen["complete"]) == (1, 1, True)
    assert (seen["items"][0]["id"], "payload" in seen["items"][0]) == (alert_id, False)
    _, kept = await subject.http("GET", "/api/dlq/silenced")
    assert [(each["id"], each["error_message"]) for each in kept["items"]] == [
        (alert_id, f"silence {made['id']}")
    ]
    status, ended = await call(subject, "DELETE", f"{path}/{made['id']}", caller="admin")
    assert (status, ended) == (200, {"ended": made["id"], "cases": 1})
    assert (await call(subject, "DELETE", f"{path}/{made['id']}", caller="admin"))[0] == 404
    await eventually(lambda: subject.sandbox.received("sms"), 20)
    assert await subject.sandbox.received("slack") == []
    assert (await subject.check())["discarded"] == 1
