"""A mail that came back, and what it does, in one transaction (P13)."""

import asyncio
import io
import json
import uuid
from typing import Any

import pytest

from libs.common.http.application import CALLER
from services.followups.inbox import acting, reader
from services.followups.messages import SubjectErased
from services.followups.store import conversations
from services.followups.store import steps as store
from services.followups.store.conversations import Subject
from services.followups.store.sql import run
from tests.integration.followups.conftest import CONFIG, GOOD_LEAD, MAILED, MailBack, World

pytestmark = [pytest.mark.quick, pytest.mark.promise("P13")]

EMAIL = MAILED
TALK = f"{GOOD_LEAD}. {EMAIL}"


@pytest.mark.parametrize("name", ["postfix", "exim", "gmail", "exchange-online", "wp"])
async def test_a_hard_bounce_ends_mail_to_the_address(mail: MailBack, name: str) -> None:
    assert await mail.come(name) == "hard"
    (dead,) = await mail.dead()
    assert dead[0] == EMAIL
    assert set(await mail.world.statuses(EMAIL)) == {"sent", "cancelled"}
    reasons = {row["reason"] for row in await mail.world.steps(EMAIL)}
    assert reasons == {None, acting.BOUNCED}
    (report,) = await mail.world.outbox("address.report")
    assert (report["email"], report["takes_mail"]) == (EMAIL, False)
    (told,) = await mail.told()  # no phone number is known
    assert told["lead_id"]
    # Not even a new conversation begins a sequence.
    await mail.world.say(TALK, session="s2")
    assert set(await mail.world.statuses(EMAIL)) == {"sent", "cancelled"}


async def test_staff_are_not_told_of_a_lead_with_a_phone_number(world: World) -> None:
    mail = MailBack(world)
    await mail.begin(f"{TALK}, 600 700 800")
    await mail.come("postfix")
    assert await mail.dead()
    assert await mail.told() == []


async def test_three_soft_bounces_in_a_week_are_a_hard_one(mail: MailBack) -> None:
    for number in range(3):
        assert await mail.dead() == []
        assert await mail.come("gmail-full", Recipient=f"R{number}") == "soft"
        assert await mail.come("gmail-full", Recipient=f"R{number}") == "duplicate"
    assert [email for email, _ in await mail.dead()] == [EMAIL]


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("name", "source"), [("arf-abuse", "complaint"), ("unsubscribe-apple", "mail")]
)
async def test_a_complaint_and_a_mailed_unsubscribe_withdraw(
    mail: MailBack, name: str, source: str
) -> None:
    await mail.come(name)
    (withdrawal,) = await mail.world.outbox("withdrawal.record")
    assert (withdrawal["email"], withdrawal["source"]) == (EMAIL, source)
    assert "scheduled" not in await mail.world.statuses(EMAIL)


async def test_an_automatic_answer_is_counted_and_does_nothing_else(mail: MailBack) -> None:
    before = await mail.world.statuses(EMAIL)
    for name in ("auto-outlook-pl", "auto-gmail", "auto-list", "postfix-delayed"):
        assert await mail.come(name) == "auto"
    assert await mail.world.statuses(EMAIL) == before
    assert not await mail.told()
    assert not await mail.dead()
    assert len(await mail.rows()) == 4


async def test_a_reply_ends_the_sequence_and_joins_the_lead(mail: MailBack) -> None:
    await mail.world.tell_staff()
    assert await mail.come("reply-files") == "reply"
    assert "scheduled" not in await mail.world.statuses(EMAIL)
    assert {row["reason"] for row in await mail.world.steps(EMAIL)} == {None, "reply"}
    await mail.world.tell_staff(after=60)
    (update,) = await mail.world.outbox("lead.updated")
    assert update["said"] == ["Przesyłam rzut mieszkania."]
    assert update["email"] == EMAIL
    assert await mail.world.outbox("withdrawal.record") == []
    (told,) = await mail.told()  # nobody has it: a case
    assert told["lead_id"] == update["lead_id"]
    assert (await mail.world.said())[-1] == (
        "✉ Re: Pani kuchnia\n\nPrzesyłam rzut mieszkania.\n\n"
        "📎 rzut.pdf (1000 B)\n\n📎 zdjęcie.jpg (10 B)"
    )


async def test_a_reply_after_the_lead_was_closed_is_a_new_request(mail: MailBack) -> None:
    await mail.world.sql("UPDATE lead SET state = 'won', state_by = 'Ewa Lis'")
    await mail.come("reply-gmail-pl")
    old, new = await mail.world.leads()
    assert (old["state"], new["state"], new["previous"]["state"]) == ("won", "new", "won")


async def test_stop_of_the_recipient_withdraws(mail: MailBack) -> None:
    assert await mail.come("reply-stop") == "reply"
    (withdrawal,) = await mail.world.outbox("withdrawal.record")
    assert withdrawal["email"] == EMAIL
    assert "scheduled" not in await mail.world.statuses(EMAIL)


async def test_stop_of_somebody_else_ends_the_sequence_and_staff_decide(mail: MailBack) -> None:
    assert await mail.come("reply-stop-other-sender") == "reply"
    assert await mail.world.outbox("withdrawal.record") == []
    assert "scheduled" not in await mail.world.statuses(EMAIL)
    (told,) = await mail.told()
    assert told["topic"] == reader.WORDS["staff"][CONFIG.staff_language]["stop"]


async def test_stop_in_the_quote_or_the_signature_withdraws_nothing(mail: MailBack) -> None:
    for name in ("reply-outlook-pl", "reply-thunderbird", "reply-wp"):
        assert await mail.come(name) == "reply"
    assert await mail.world.outbox("withdrawal.record") == []


async def test_a_mail_that_we_did_not_cause_goes_to_staff(mail: MailBack) -> None:
    before = await mail.world.statuses(EMAIL)
    assert await mail.come("unknown") == "unknown"
    (told,) = await mail.told()
    assert told["email"] == "jan@elsewhere.example"
    assert "Pruszkowie" in " ".join(told["said"])
    assert await mail.world.statuses(EMAIL) == before


async def test_a_mail_without_a_thread_ends_the_senders_mails(mail: MailBack) -> None:
    assert await mail.come("unknown", **{"jan@elsewhere.example": EMAIL}) == "unknown"
    assert "scheduled" not in await mail.world.statuses(EMAIL)
    assert len(await mail.told()) == 1


async def test_a_forged_bounce_buries_nobody(mail: MailBack) -> None:
    mail.step = uuid.uuid4()
    assert await mail.come("postfix") == "unknown"
    assert await mail.dead() == []


async def test_a_flood_of_unknown_mails_is_told_in_one(
    mail: MailBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "TOLD_AN_HOUR", 2)
    for number in range(5):
        await mail.come("unknown", Pruszkowie=f"Krakowie {number}")
    assert len(await mail.told()) == 2
    await mail.inbox.tell_of_the_rest()  # a day has not passed
    assert len(await mail.told()) == 2
    await mail.world.sql("UPDATE mail SET received_at = now() - interval '25 hours'")
    await mail.inbox.tell_of_the_rest()
    await mail.inbox.tell_of_the_rest()
    assert [each["said"] for each in await mail.told()][2:] == [["3"]]


async def test_a_shared_mailbox_keeps_what_is_not_about_a_step(mail: MailBack) -> None:
    read = reader.read(mail.raw("unknown"))
    assert await mail.inbox.act(read, leaves=True) == "left"
    assert await mail.rows() == []
    assert await mail.inbox.act(reader.read(mail.raw("postfix")), leaves=True) == "hard"


async def test_of_ten_copies_at_once_one_acts(mail: MailBack) -> None:
    read = reader.read(mail.raw("reply-gmail-pl"))
    outcomes = await asyncio.gather(*(mail.inbox.act(read) for _ in range(10)))
    assert sorted(outcomes) == ["duplicate"] * 9 + ["reply"]
    assert len([each for each in await mail.world.said() if each.startswith("✉")]) == 1


@pytest.mark.parametrize("name", ["postfix", "arf-abuse", "reply-stop", "unknown"])
async def test_what_dies_before_the_commit_changes_nothing(
    mail: MailBack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await mail.world.statuses(EMAIL)

    async def dies(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(store, "stop", dies)
    with pytest.raises(ConnectionError):
        await mail.come(name, **{"jan@elsewhere.example": EMAIL})
    assert await mail.world.statuses(EMAIL) == before
    assert not any([await mail.rows(), await mail.dead(), await mail.told()])
    assert await mail.world.outbox("withdrawal.record") == []
    monkeypatch.undo()
    assert await mail.come(name, **{"jan@elsewhere.example": EMAIL}) != "duplicate"


@pytest.mark.promise("P12")
async def test_an_erasure_and_an_export_reach_it(mail: MailBack, world: World) -> None:
    await mail.come("gmail-full")
    await mail.come("postfix")
    async with world.engine.begin() as tx:
        held = await conversations.held(tx, Subject(EMAIL), "mails", 0, 10)
        found = await conversations.trace(tx, Subject(EMAIL))
    assert {row["kind"] for row in held} == {"hard", "soft"}
    order = SubjectErased(
        email=EMAIL, erasure_id=uuid.uuid4(), conversations=found.conversations,
        phones=found.phones,
    )  # fmt: skip
    await world.consumers.erase(order)
    assert not any([await mail.rows(), await mail.dead()])


async def test_old_mails_are_forgotten(mail: MailBack, world: World) -> None:
    await mail.come("unknown")
    await mail.come("gmail-full")

    async def after(days: int) -> list[str]:
        await world.sql(f"UPDATE mail SET received_at = now() - interval '{days} days'")
        await run.alone(world.engine, "forget_mails", days=365, limit=500)
        return [row["kind"] for row in await mail.rows()]

    assert await after(29) == ["unknown", "soft"]
    assert await after(31) == ["soft"]
    assert await after(366) == []


async def test_a_mail_comes_by_http_and_acts_once(mail: MailBack, world: World) -> None:
    for outcome in ("hard", "duplicate"):
        sent = {"data": mail.raw("postfix"), "headers": {"Content-Type": "message/rfc822"}}
        told = await world.call("POST", "/api/mail/inbound", **sent)
        assert told == (200, {"outcome": outcome})
    _, rates = await world.call("GET", "/api/mail/rates", headers={CALLER: "admin"})
    assert rates == {"sent": 1, "bounced": 1, "complained": 0, "replied": 0}
    (item,) = await world.listed("mail/undeliverable")
    assert (item["email"], item["reason"]) == (EMAIL, "5.1.1")
    retry = f"/api/mail/undeliverable/{item['conversation_id']}/retry"
    for status in (200, 404):
        assert (await world.call("POST", retry))[0] == status
    assert [r["takes_mail"] for r in await mail.world.outbox("address.report")] == [False, True]
    assert await mail.world.enrol(EMAIL, steps=1)
    (look, act) = await mail.world.outbox("action.record")
    assert (look["action"], act["action"]) == ("mail.look", "mail.retry")
    assert EMAIL not in str((look, act))


def reported(kind: str, email: str = EMAIL, event: int = 1) -> dict[str, Any]:
    return {"RecordType": "Bounce", "ID": event, "Type": kind, "Email": email}


async def test_what_a_provider_reports_counts_once(mail: MailBack, world: World) -> None:
    async def outcome(report: dict[str, Any]) -> list[str]:
        _, told = await world.post("/api/mail/events/postmark", report)
        return list(told["outcomes"])

    assert await outcome(reported("Open")) == []
    assert await outcome(reported("HardBounce", "nobody@example.org")) == ["left"]
    assert await mail.dead() == []
    assert await outcome(reported("HardBounce")) == ["hard"]
    assert await outcome(reported("HardBounce")) == ["duplicate"]
    assert await mail.dead() == [(EMAIL, "HardBounce")]
    assert await outcome(reported("SpamComplaint", event=2)) == ["complaint"]
    (withdrawal,) = await mail.world.outbox("withdrawal.record")
    assert (withdrawal["email"], withdrawal["source"]) == (EMAIL, "complaint")


async def test_staff_open_what_sns_sends(mail: MailBack, world: World) -> None:
    asks = {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.example.com/?Token=1"}
    sent = await world.call("POST", "/api/mail/events/ses", data=json.dumps(asks))
    assert sent == (200, {"outcomes": []})
    (told,) = await mail.told()
    assert told["said"] == ["https://sns.example.com/?Token=1"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"a" * (reader.MOST_BYTES + 1), "message/rfc822", 413),
        (b"{}", "application/json", 415),
        (b"Content-Type: multipart/x; boundary=b\n\n" + b"--b\n\n" * 1001, "message/rfc822", 422),
    ],
)
async def test_a_mail_that_is_refused_changes_nothing(
    mail: MailBack, world: World, body: bytes, kind: str, status: int
) -> None:
    sent = {"data": io.BytesIO(body), "headers": {"Content-Type": kind}}
    assert (await world.call("POST", "/api/mail/inbound", **sent))[0] == status
    assert await mail.rows() == []
    assert len(await mail.told()) == (status == 422)  # on-call hears of it
