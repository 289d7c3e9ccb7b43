"""What a chat asks consent for and withdraws, as consent records it: by purpose and channel."""

import itertools
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.conftest import WholeSystem
from tests.support.eventually import eventually
from tests.support.shipped import EXAMPLE
from tests.support.stack import Stack
from tests.support.system import LEAD, WORDING, fresh_address

pytestmark = pytest.mark.promise("P4")

ASKS = """
[[wordings]]
version = "chat-each"
place = "chat"
grants = ["marketing:email", "marketing:phone", "reminders:email"]
text.pl = "O co pytamy: Ostoja Wnętrza sp. z o.o., https://www.ostoja-wnetrza.example/prywatnosc"
text.en = "What we ask: Ostoja Wnętrza sp. z o.o., https://www.ostoja-wnetrza.example/prywatnosc"
"""
numbers = itertools.count(600_700_100)


@pytest.fixture(scope="module")
def stack(whole_system: WholeSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    path = tmp_path_factory.mktemp("company") / "company.toml"
    path.write_text((EXAMPLE / "company.toml").read_text("utf-8") + ASKS, encoding="utf-8")
    with whole_system({"COMPANY_CONFIG": str(path)}) as running:
        yield running


class Visitor:
    def __init__(self, stack: Stack) -> None:
        self.stack, self.session = stack, uuid.uuid4().hex
        self.address, self.number = fresh_address(), f"+48{next(numbers)}"
        self.ask: dict[str, Any] = {}

    async def sends(self, **said: Any) -> None:
        body = {"session_id": self.session, "language": "pl"} | said
        answer = await self.stack.http("POST", "/api/chatbot/chat", body)
        assert answer.status == 200, answer
        self.ask = answer.body["ask"] or {}

    async def is_asked(self, **contact: str) -> list[str]:
        await self.sends(message=LEAD["message"], **contact)
        assert self.ask["kind"] == "consent"
        return self.choices

    @property
    def choices(self) -> list[str]:
        return [each["id"] for each in self.ask["choices"]]

    async def taps(self, choice: str) -> None:
        shown = self.ask["wording"]["sha256"]
        await self.sends(tap={"ask": self.ask["id"], "choice": choice, "wording": shown})

    async def stands(self, who: str, *granted: str) -> None:
        """Wait until consent holds these, and no others, for an address or a number."""

        def so(found: dict[str, Any]) -> bool:
            held = {
                f"{name}:{channel}"
                for name, by in (found["purposes"] or {}).items()
                for channel, each in by.items()
                if each["state"] == "granted"
            }
            return held == set(granted)

        await eventually(lambda: self.stack.consents(who), so=so)


async def test_each_thing_that_the_wording_grants_is_agreed_to_by_itself(stack: Stack) -> None:
    visitor = Visitor(stack)
    offered = await visitor.is_asked(email=visitor.address, phone=visitor.number)
    assert offered == ["yes", "yes-marketing-phone", "yes-reminders", "no"]
    await visitor.sends(message="tak")  # to all of them, or to which?
    await visitor.taps("yes-marketing-phone")
    assert visitor.choices == ["yes", "yes-reminders"], "the others are asked for still"
    await visitor.stands(visitor.number, "marketing:phone")
    await visitor.taps("yes-reminders")
    await visitor.taps("skip")
    await visitor.stands(visitor.address, "reminders:email")
    entries = (await stack.audit(visitor.number))["entries"]
    assert {each["evidence"]["wording_version"] for each in entries} == {"chat-each"}


async def test_a_refusal_withdraws_for_the_address_and_for_the_number(stack: Stack) -> None:
    visitor = Visitor(stack)
    await visitor.is_asked(email=visitor.address, phone=visitor.number)
    for choice in ("yes", "yes-marketing-phone"):
        await visitor.taps(choice)
    await visitor.stands(visitor.number, "marketing:phone")
    await visitor.stands(visitor.address, "marketing:email")
    await visitor.sends(message="nie chcę żadnych wiadomości")
    await visitor.stands(visitor.number)
    await visitor.stands(visitor.address)


async def test_who_gave_a_number_only_is_asked_for_calls_only_and_may_refuse_them(
    stack: Stack,
) -> None:
    visitor = Visitor(stack)
    assert await visitor.is_asked(phone=visitor.number) == ["yes-marketing-phone", "no"]
    await visitor.taps("no")
    trail = partial(stack.audit, visitor.number)
    await eventually(trail, so=lambda found: "'unsubscribe'" in str(found["entries"]))


async def test_a_number_that_was_given_by_mistake_keeps_no_agreement(stack: Stack) -> None:
    visitor, right = Visitor(stack), f"+48{next(numbers)}"
    await visitor.is_asked(phone=visitor.number)
    await visitor.taps("yes-marketing-phone")
    await visitor.stands(visitor.number, "marketing:phone")
    await visitor.sends(tap={"ask": "card", "choice": "phone"})
    await visitor.sends(tap={"ask": visitor.ask["id"], "value": right})
    await visitor.stands(visitor.number)
    await visitor.stands(right)


# As shipped an agreement counts once its mailed link was followed, wherever it was given.

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
