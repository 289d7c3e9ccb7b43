"""Erasures outlast lost orders and late messages, within a month of the request."""

from datetime import UTC, datetime, timedelta

from libs.common.messaging.consumer import Ack
from services.consent import erasure_orders
from services.consent.store.sql import run
from tests.integration.consent.conftest import ANNA, Consent


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
