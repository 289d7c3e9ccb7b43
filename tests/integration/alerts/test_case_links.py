"""The links in a step's SMS and mail, by which its person answers."""

import json
import re
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.alerts.rules.case import Verb
from tests.integration.alerts.cases import Cases, answer
from tests.integration.alerts.conftest import KEY, Alerts, StartAlerts
from tests.integration.alerts.test_case_http import lead, sections
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P9")

CONTACT = "Jan, jan@example.com"
CHAIN = [
    {"to": "sms", "call": "sales", "wait": "1s"},
    {"to": "email", "person": "ewa", "wait": "12h"},
]


class Sent:
    """A lead whose chain has asked Anna by SMS and Ewa by mail."""

    def __init__(self, subject: Alerts, case_id: UUID, anna: str, ewa: str) -> None:
        self.subject = subject
        self.case_id = case_id
        self.anna = anna
        self.ewa = ewa
        self.cases = Cases(subject.engine)

    async def call(self, method: str, path: str, form: Any = None) -> tuple[int, str]:
        got = await self.subject.send(method, path, {"X-Internal-Key": KEY}, data=form)
        assert "script" not in got.headers["Content-Security-Policy"]
        assert got.headers["Referrer-Policy"] == "no-referrer"
        return got.status, got.body

    async def page(self, path: str) -> str:
        status, text = await self.call("GET", path)
        assert status == 200, text
        return text

    async def press(self, path: str, verb: str, page: str | None = None) -> tuple[int, str]:
        return await self.call("POST", path, form(page or await self.page(path), verb))


def form(page: str, verb: str) -> dict[str, str]:
    hidden = dict(re.findall(r'name="(nonce|generation)" value="([^"]+)"', page))
    return {**hidden, "answer": verb}


def buttons(page: str) -> list[str]:
    return re.findall(r'name="answer" value="(\w+)"', page)


@pytest.fixture
async def sent(alerts: StartAlerts) -> Sent:
    subject = await alerts(sections=sections(chain=CHAIN), PUBLIC_BASE_URL="https://o.example/")
    case_id = await lead(subject)
    (mail,) = await eventually(lambda: subject.sandbox.mails("ewa@example.pl"), 30)
    (sms,) = await subject.sandbox.received("sms")
    assert CONTACT not in mail["Text"] + str(sms)
    paths = [
        re.findall(r"https://o\.example(/a/[\w-]{22})", text)
        for text in (str(sms["body"]["message"]), mail["Text"])
    ]
    (anna,), (ewa,) = paths
    assert len(sms["body"]["message"]) <= 160
    return Sent(subject, case_id, anna, ewa)


async def test_to_open_a_link_changes_nothing_and_shows_no_contact(sent: Sent) -> None:
    before = await sent.cases.case(sent.case_id)
    page = await sent.page(sent.anna)
    assert (await sent.call("HEAD", sent.anna))[0] == 200
    assert buttons(page) == ["taken", "later", "not_a_lead"]
    assert "score 100" in page
    assert "jan@example.com" not in page
    assert await sent.cases.case(sent.case_id) == before


async def test_who_takes_it_sees_the_contact_and_the_other_who_has_it(sent: Sent) -> None:
    before = await sent.page(sent.ewa)
    status, page = await sent.press(sent.anna, "taken")
    assert (status, buttons(page)) == (200, ["won", "lost", "not_a_lead", "remind", "release"])
    assert CONTACT in page
    assert (await sent.press(sent.anna, "remind"))[0] == 200
    assert (await sent.cases.case(sent.case_id)).wished
    status, page = await sent.press(sent.ewa, "taken", before)
    assert status == 409
    assert "Anna Nowak has it" in page
    assert (CONTACT in page, buttons(page)) == (False, [])
    await sent.cases.sees(sent.case_id, state="answered", owner="anna")


async def test_a_form_that_is_sent_twice_is_one_answer(sent: Sent) -> None:
    page = await sent.page(sent.anna)
    assert [(await sent.press(sent.anna, "taken", page))[0] for _ in range(2)] == [200, 200]
    (row,) = await sent.cases.rows("SELECT person, via, verb FROM case_answer")
    assert tuple(row) == ("anna", "link", "taken")


async def test_what_was_shown_before_the_chain_began_anew_takes_but_does_not_close(
    sent: Sent,
) -> None:
    old = await sent.page(sent.anna)
    await sent.cases.take(sent.case_id)
    await sent.cases.answer(sent.case_id, answer(Verb.RELEASE))
    status, page = await sent.press(sent.anna, "not_a_lead", old)
    assert (status, buttons(page)) == (409, ["taken", "later", "not_a_lead"])
    assert (await sent.press(sent.anna, "not_a_lead", page))[0] == 200


async def details(sent: Sent, **payload: str) -> list[str]:
    """Return what the owner's page shows of the lead, each as HTML."""
    whole = json.dumps({"text": "a lead", **payload})
    await sent.cases.execute("UPDATE alert_case SET payload = CAST(:new AS jsonb)", new=whole)
    await sent.cases.take(sent.case_id)
    shown = re.finditer(r'<dd>(.*)</dd>|<p>(<a class="button".*)</p>', await sent.page(sent.anna))
    return [each[1] or each[2] for each in shown]


async def test_the_owner_calls_and_writes_by_a_link_and_by_no_other_text_of_a_stranger(
    sent: Sent,
) -> None:
    assert await details(sent, phone="600 700 800", email="Jan.O'Nil+x@Example.com") == [
        """<a href="mailto:jan.o%27nil%2Bx@example.com">Jan.O&#39;Nil+x@Example.com</a>""",
        "a lead",
        '<a class="button" href="tel:+48600700800">Call: 600 700 800</a>',
    ]
    (link, _) = await details(sent, email="jan?bcc=eve&x=%0a@example.com")  # no header of a mail
    assert 'href="mailto:jan%3Fbcc%3Deve%26x%3D%250a@example.com"' in link
    for given in (
        {"phone": "javascript:alert(1)"},
        {"phone": "600700800;ext=1"},
        {"phone": "call https://evil.example"},
        {"email": "https://evil.example"},
        {"email": "write to jan@example.com"},
        {"name": "javascript:alert(1)"},
        {"summary": '<a href="https://evil.example">tel:+48600700800</a>'},
        {"transcript_url": "javascript:alert(1)"},
    ):
        shown = await details(sent, **given)
        assert (len(shown), [each for each in shown if "<" in each]) == (2, [])


ERASED = (
    "UPDATE alert_case SET state = 'cancelled', reason = 'erased', next_at = NULL, ended_at = now()"
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE case_link SET expires_at = now()",
        "DELETE FROM case_link",
        ERASED,
    ],
)
async def test_a_link_that_is_old_or_whose_person_was_erased_is_gone(
    sent: Sent, statement: str
) -> None:
    page = await sent.page(sent.anna)
    await sent.cases.execute(statement)
    assert (await sent.call("GET", sent.anna))[0] == 410
    assert (await sent.press(sent.anna, "taken", page))[0] == 410
    assert (await sent.call("GET", f"/a/{'A' * 22}"))[0] == 410


async def test_a_form_that_no_page_of_ours_has_answers_nothing(sent: Sent) -> None:
    for given in (
        {},
        {"answer": "reopen", "nonce": str(uuid4()), "generation": "0"},
        {"answer": "taken", "nonce": "1", "generation": "0"},
        {"answer": "taken", "nonce": str(uuid4()), "generation": "x"},
    ):
        assert (await sent.call("POST", sent.anna, given))[0] == 410
    assert (await sent.cases.case(sent.case_id)).state == "open"
