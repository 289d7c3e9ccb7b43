"""Erasure: asked for, proved by a mailed link, ordered, reported back."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from libs.common.messaging.consumer import Ack, Dead
from services.consent import erasure_orders
from services.consent.store.sql import run
from tests.integration.consent.conftest import ANNA, Consent

PAGE = "/erasure/confirm?token="


async def test_a_revocation_over_the_public_budget_is_recorded_and_mails_nothing(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA)
    over = {"X-Over-Budget": "1"}
    status, body = await consent.post("/api/revoke-consent", {"email": ANNA}, **over)
    assert (status, body["erasure"]) == (200, {"status": "ask_again_later"})
    assert await consent.mails() == []
    assert (await consent.get(f"/api/unsubscribe/status/{ANNA}"))["unsubscribed"]
    _, body = await consent.post("/api/revoke-consent", {"email": ANNA})  # asked again, later
    assert body["erasure"] == {"status": "awaiting_confirmation"}
    assert len(await consent.mails()) == 1


async def test_a_revocation_by_anyone_gets_the_same_answer_and_mails_a_link(
    consent: Consent,
) -> None:
    assert await consent.grant(ANNA)
    answers = []
    for email in (ANNA, "nobody@example.com"):
        status, body = await consent.post("/api/revoke-consent", {"email": email})
        assert body == {
            "success": True, "email": email, "consents_revoked": ["marketing"],
            "erasure": {"status": "awaiting_confirmation"},
        }  # fmt: skip
        answers.append(status)
        (mail,) = [each for each in await consent.mails() if each["payload"]["to"] == email]
        assert (mail["event_type"], mail["once"]) == ("consent.mail", None)
    assert answers == [200, 200]
    assert (await consent.entries(ANNA))[-1]["action"] == "revoke-consent"
    assert (await consent.erasure())["status"] == "awaiting_confirmation"


async def test_an_erasure_does_not_reset_the_hourly_limit_of_links(consent: Consent) -> None:
    await consent.post("/api/revoke-consent", {"email": ANNA})
    await consent.seen("POST", PAGE + await consent.mailed_token("erasure"))
    await consent.post("/api/revoke-consent", {"email": ANNA})
    assert len(await consent.mails()) == 1


async def test_the_button_erases_once_and_uses_up_the_link(consent: Consent) -> None:
    assert await consent.grant(ANNA)
    await consent.post("/api/revoke-consent", {"email": ANNA})
    token = await consent.mailed_token("erasure")
    assert (await consent.seen("POST", PAGE + token))[0] == 200
    assert await consent.entries(ANNA) == []
    assert (await consent.erasure())["status"] == "in_progress"
    sent = await consent.orders()
    assert [key for key, _ in sent] == ["person.erased.followups"]
    assert {body["email"] for _, body in sent} == {ANNA}
    assert await consent.scalar("SELECT subject_id FROM erasure") is None  # nor to the trail

    await consent.post("/api/opt-in", {"email": ANNA, "text": "tak"})  # a new subject
    for method in ("get", "head", "post"):
        assert (await consent.seen(method, PAGE + token))[0] == 410
    assert len(await consent.entries(ANNA)) == 1
    assert len(await consent.orders()) == 1


async def test_two_clicks_at_once_erase_once(consent: Consent) -> None:
    await consent.post("/api/revoke-consent", {"email": ANNA})
    token = await consent.mailed_token("erasure")

    clicks = await asyncio.gather(*(consent.seen("POST", PAGE + token) for _ in range(2)))
    assert {status for status, _ in clicks} <= {200, 410}
    assert await consent.scalar("SELECT count(*) FROM data_subject WHERE erased_at IS NULL") == 0


async def test_a_foreign_or_expired_link_erases_no_one(consent: Consent) -> None:
    for email in (ANNA, "jan@example.com"):
        await consent.post("/api/revoke-consent", {"email": email})
    ids = await consent.rows("SELECT id FROM erasure ORDER BY requested_at")
    anna, jan = (UUID(str(row.id)) for row in ids)
    before = await consent.everything()
    for token, status in (
        (consent.link(ANNA), 400),
        (consent.erasure_link(ANNA, anna, timedelta(hours=25)), 400),
        (consent.erasure_link(ANNA, anna) + "A", 400),
        ("", 400),
        (consent.erasure_link(ANNA, jan), 410),
        (consent.erasure_link(ANNA, uuid4()), 410),
    ):
        assert (await consent.seen("POST", PAGE + token))[0] == status
    assert await consent.everything() == before
    url = f"/unsubscribe?token={consent.erasure_link(ANNA, anna)}"
    assert (await consent.seen("POST", url))[0] == 400


async def test_an_open_permit_delays_the_erasure_and_the_link_stays_valid(consent: Consent) -> None:
    assert await consent.grant(ANNA)
    message = uuid4()
    await consent.permit(message=message)
    assert (await consent.post("/api/revoke-consent", {"email": ANNA}))[0] == 202
    token = await consent.mailed_token("erasure")
    status, page = await consent.seen("POST", PAGE + token)
    assert (status, "<button" in page) == (202, True)
    assert (await consent.erasure())["status"] == "awaiting_confirmation"
    await consent.give_back(message)
    assert (await consent.seen("POST", PAGE + token))[0] == 200
    assert (await consent.erasure())["status"] == "in_progress"


async def test_an_erasure_is_done_once_every_service_has_reported(consent: Consent) -> None:
    await consent.erase()
    erasure_id = (await consent.orders())[0][1]["erasure_id"]
    await consent.receipt(erasure_id, "alerts")  # out of turn
    assert (await consent.erasure())["waiting_for"] == ["followups", "alerts"]
    for _ in range(2):
        assert isinstance(await consent.receipt(erasure_id, "followups"), Ack)
        assert (await consent.erasure())["waiting_for"] == ["alerts"]
    assert isinstance(await consent.receipt(erasure_id, "gateway"), Dead)
    assert (await consent.erasure())["status"] == "in_progress"
    await consent.receipt(erasure_id, "alerts")
    done = await consent.erasure()
    assert (done["status"], done["waiting_for"]) == ("done", [])
    assert done["finished_at"] >= done["confirmed_at"] >= done["requested_at"]


async def test_alerts_gets_its_order_after_the_receipt_of_followups_with_the_trace(
    consent: Consent,
) -> None:
    await consent.erase()
    ((key, order),) = await consent.orders()
    assert (key, order["conversations"]) == ("person.erased.followups", [])
    erasure_id = order["erasure_id"]
    found = {"conversations": [str(uuid4())], "phones": ["+48601234567"]}
    await consent.takes("erasure.trace", {"erasure_id": erasure_id} | found)
    key, order = (await consent.orders())[-1]
    assert key == "person.erased.followups"
    assert order.items() >= found.items()
    await consent.receipt(erasure_id, "followups")
    key, order = (await consent.orders())[-1]
    assert key == "person.erased.alerts"
    assert order.items() >= found.items()


async def test_erasing_again_repeats_the_order_of_the_same_erasure(consent: Consent) -> None:
    for _ in range(2):
        await consent.erase()
    sent = await consent.orders()
    assert len(sent) == 2
    assert len({body["erasure_id"] for _, body in sent}) == 1


# Erasures outlast lost orders and late messages, within a month of the request.


def agreed(at: datetime) -> dict[str, str]:
    said = {"email": ANNA, "purpose": "marketing", "wording": "Zgadzam się.", "source": "chat"}
    return said | {"at": at.isoformat()}


async def test_an_older_agreement_does_not_make_an_erased_subject_known(consent: Consent) -> None:
    await consent.grant(ANNA)
    before = datetime.now(UTC)
    await consent.erase()
    late = agreed(before)
    for _ in range(2):  # it comes again, and is dropped again
        assert await consent.takes("grant.record", late) == Ack()
    said = {"email": ANNA, "text": "Zgadzam się."}
    answer = await consent.post("/api/opt-in", said, **{"X-Accepted-At": before.isoformat()})
    assert answer == (200, {"success": True, "email": ANNA})
    assert await consent.scalar("SELECT count(*) FROM data_subject WHERE erased_at IS NULL") == 0
    now = datetime.now(UTC) + timedelta(seconds=1)
    await consent.takes("grant.record", agreed(now))
    assert [entry["action"] for entry in await consent.entries(ANNA)] == ["opt-in"]


async def test_a_lost_order_is_repeated_to_services_that_have_not_reported(
    consent: Consent,
) -> None:
    await consent.erase()
    ((_, first),) = await consent.orders()
    await consent.receipt(first["erasure_id"], "followups")
    await consent.rows("DELETE FROM outbox")

    await erasure_orders.follow_up(consent.engine, consent.vault, 3600)
    assert await consent.orders() == []  # not yet
    await erasure_orders.follow_up(consent.engine, consent.vault, 0)
    ((routing_key, order),) = await consent.orders()
    assert routing_key == "person.erased.alerts"
    assert (order["email"], order["erasure_id"]) == (ANNA, first["erasure_id"])


async def test_the_subject_of_an_order_is_sealed_and_deleted_with_the_last_receipt(
    consent: Consent,
) -> None:
    await consent.erase()
    sealed = "SELECT encode(sealed_subject, 'escape') FROM erasure"
    assert "anna" not in await consent.scalar(sealed)
    ((_, order),) = await consent.orders()
    for service in ("followups", "alerts"):
        await consent.receipt(order["erasure_id"], service)
    assert await consent.scalar(sealed) is None


async def test_an_erasure_is_due_a_month_after_its_request(consent: Consent) -> None:
    assert (await run.alone(consent.engine, "open_erasures")).one() == (0, None, 0)
    await consent.erase()
    await consent.rows("UPDATE erasure SET requested_at = now() - interval '25 days'")
    count, days, awaiting = (await run.alone(consent.engine, "open_erasures")).one()
    assert (count, awaiting) == (1, 0)
    assert 2 < days < 7
    found = await consent.erasure()
    month = datetime.fromisoformat(found["due_at"]) - datetime.fromisoformat(found["requested_at"])
    assert timedelta(days=28) <= month <= timedelta(days=31)


async def test_a_lapsed_request_does_not_set_the_deadline_of_a_later_one(consent: Consent) -> None:
    for days, is_new in ((3, False), (8, True)):
        await consent.post("/api/revoke-consent", {"email": ANNA})
        await consent.rows(f"UPDATE erasure SET requested_at = now() - interval '{days} days'")
        await consent.post("/api/revoke-consent", {"email": ANNA})
        age = await consent.scalar("SELECT now() - requested_at FROM erasure")
        assert (age < timedelta(hours=1)) is is_new
