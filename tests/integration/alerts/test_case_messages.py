"""What people see of a case, through the whole service (docs/protocols.md, D, steps 4 and 8)."""

from typing import Any
from uuid import UUID

import pytest

from tests.integration.alerts.cases import Cases
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P9")

PEOPLE = {
    "anna": {"name": "Anna Nowak", "slack": "U012ABC", "email": "anna@example.pl"}
    | {"phone": "+48600100200"},
    "ewa": {"name": "Ewa Lis", "email": "ewa@example.pl", "phone": "+48600100300"},
}
SECTIONS: dict[str, Any] = {
    "answers": {
        "lead.qualified": {
            "asks": ["slack"],
            "within": "1s",
            "chain": [
                {"to": "slack", "mention": "sales", "wait": "1s"},
                {"to": "sms", "call": "sales", "wait": "1s"},
                {"to": "email", "person": "ewa", "wait": "1h"},
            ],
        }
    },
    "schedules": {"sales": {"file": "rota.ics", "otherwise": "anna"}},
    "people": PEOPLE,
}


def sections(**changes: Any) -> dict[str, Any]:
    """Return the sections with other settings of the policy."""
    policy = SECTIONS["answers"]["lead.qualified"] | changes
    return {**SECTIONS, "answers": {"lead.qualified": policy}}


async def lead(subject: Alerts, **payload: Any) -> UUID:
    given = {"text": "Jan, jan@example.com", "score": 100, **payload}
    return UUID(await subject.accept("lead.qualified", payload=given))


async def texts(subject: Alerts, target: str) -> list[str]:
    got = await subject.sandbox.received(target)
    return [str(each["body"]) for each in got]


async def test_a_lead_that_no_one_takes_travels_its_chain(alerts: StartAlerts) -> None:
    subject = await alerts(sections=SECTIONS)
    case_id = await lead(subject, staff_language="pl")
    mails = await eventually(lambda: subject.sandbox.mails("ewa@example.pl"), 30)
    assert f"ostoja take {case_id}" in mails[0]["Text"]
    said = await texts(subject, "slack")
    assert any("<@U012ABC>" in text and str(case_id) in text for text in said), said
    (sms,) = await texts(subject, "sms")
    assert "+48600100200" in sms
    assert "jan@example.com" not in sms
    assert (await subject.check())["failed"] == 0


async def test_who_was_asked_is_told_who_has_it(alerts: StartAlerts) -> None:
    chain = [{"to": "sms", "call": "sales", "wait": "1h"}]
    subject = await alerts(sections=sections(chain=chain))
    case_id = await lead(subject, staff_language="pl")
    await eventually(lambda: texts(subject, "sms"), 20)
    await Cases(subject.engine).take(case_id, "ewa")

    async def told() -> bool:
        slack, sms = await texts(subject, "slack"), await texts(subject, "sms")
        return any("ma Ewa Lis od" in text for text in slack) and len(sms) == 2

    await eventually(told, 20)
    (_, sms) = await texts(subject, "sms")
    assert "+48600100200" in sms
    assert "Ewa" in sms
