"""As shipped an agreement counts once its mailed link was followed, wherever it was given."""

import uuid
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import LEAD, WORDING, fresh_address

pytestmark = pytest.mark.promise("P4")

STACK_SETTINGS = {"DOUBLE_OPT_IN": "on"}


async def test_a_yes_in_the_chat_leads_to_a_follow_up_once_it_is_confirmed_by_mail(
    stack: Stack,
) -> None:
    address = fresh_address()
    session = uuid.uuid4().hex
    for said in (LEAD | {"email": address}, {"message": "tak"}):
        answer = await stack.http("POST", "/api/chatbot/chat", said | {"session_id": session})
        assert answer.status == 200, answer
    await stack.follow_up(address)

    await eventually(
        lambda: stack.http("GET", "/api/dlq/pending?target=email", key="admin"),
        40,
        so=lambda waiting: any("no_consent" in str(item) for item in waiting.body["items"]),
    )
    assert await stack.links(address, "/unsubscribe") == []
    (mail,) = await eventually(lambda: stack.sandbox.mails(address), 40)  # it waits for a permit
    assert "w rozmowie na czacie" in mail["Text"]
    assert "Czy zgadza się Pani/Pan na otrzymywanie" in mail["Text"]
    await stack.confirm(address)

    assert len(await eventually(lambda: stack.links(address, "/unsubscribe"), 40)) == 1


async def test_an_import_without_proof_is_kept_and_confirmed_by_mail_in_published_words(
    stack: Stack,
) -> None:
    address, text = fresh_address(), "Zgadzam się na zlap-nagrode.pl"
    rows = f"email;consent_text;consent_at;consent_source\n{address};{text};2024-05-01;targi\n"
    rows += f"{fresh_address()};{WORDING.text};2024-05-01;\n"  # nobody says where
    key = await stack.own_key("leads:import")
    report = await stack.http("POST", "/api/leads/import", csv=rows, headers=key)
    assert (report.body["grants"], report.body["to_confirm"]) == (2, 2)
    (mail,) = await eventually(lambda: stack.sandbox.mails(address), 40)
    assert "przenieśliśmy go z wcześniejszej bazy" in mail["Text"]
    assert WORDING.text in " ".join(mail["Text"].split())
    assert "nagrode" not in mail["Text"]
    await stack.confirm(address)
    kept, confirmed = (each["evidence"] for each in (await stack.audit(address))["entries"])
    assert (kept["wording"], kept["counts"]) == (text, False)
    assert (confirmed["wording"], confirmed["counts"]) == (WORDING.text, True)


async def test_after_the_200_of_a_withdrawal_no_mail_asks_to_confirm(stack: Stack) -> None:
    address = fresh_address()

    async def of_mail(*states: str) -> Any:
        found = stack.query(
            "SELECT state, attempt FROM alerts.delivery WHERE payload ->> 'to' = %s", address
        )
        return [row.attempt for row in found if row.state in states]

    await stack.sandbox.behave("email", status=451, stage="data")
    try:
        agreed = {"email": address, "text": WORDING.text}
        assert (await stack.http("POST", "/api/opt-in", agreed)).status == 200
        await eventually(lambda: of_mail("pending", "sending"))
        answer = await stack.http("POST", "/api/unsubscribe", {"email": address})
        assert answer.status == 200, answer
    finally:
        await stack.sandbox.heal()
    await eventually(lambda: of_mail("delivered", "discarded"), 40)
    assert await stack.sandbox.mails(address) == []
