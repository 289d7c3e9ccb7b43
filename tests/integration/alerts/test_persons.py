"""What the ledger holds on a person: exported and erased as consent orders."""

import unicodedata
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from libs.common.broker import Broker, Message
from libs.common.consume import Ack, Delivery, Outcome, consume
from libs.common.requests import Requester
from libs.common.topology import Binding, Exchange, Queue
from services.alerts import persons
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.brokers import Vhost
from tests.support.consumers import connected, until
from tests.support.eventually import eventually

ANNA = "anna@example.com"
ERASURE = "7d0f3c52-91d4-4d0b-8a4e-3a5f7c1e2b90"
ONCE = {"address": ANNA, "purpose": "marketing", "reference": str(uuid.uuid4())}


class Consent:
    """Consent's side: it orders, hears receipts, asks; to permits it gives no answer."""

    def __init__(self, broker: Broker, requester: Requester) -> None:
        self._broker = broker
        self._requester = requester
        self.receipts: list[dict[str, Any]] = []

    async def handle(self, message: Message, _: Delivery) -> Outcome:
        if message.type == "erasure.receipt":
            self.receipts.append(dict(message.body))
        return Ack()

    async def order(self, email: str = ANNA) -> None:
        body = {"email": email, "purposes": [], "action": "erased", "erasure_id": ERASURE}
        message = Message(str(uuid.uuid4()), "person.erased", body)
        await self._broker.publish("consent.events", "person.erased.alerts", message)

    async def erased(self, email: str = ANNA) -> None:
        before = len(self.receipts)
        await self.order(email)
        await until(lambda: len(self.receipts) > before)

    async def held(self, email: str = ANNA) -> list[dict[str, Any]]:
        return await self._all("deliveries", email)

    async def attempts(self, email: str = ANNA) -> list[dict[str, Any]]:
        return await self._all("attempts", email)

    async def addresses(self) -> list[str]:
        """Ask whose addresses are held at all."""
        return [each["address"] for each in await self._all("addresses", None)]

    async def _all(self, kind: str, email: str | None) -> list[dict[str, Any]]:
        found, after = [], None
        while True:
            body = {"email": email, "after": after}
            answer = await self._requester.ask(
                "alerts", "export.request", "export.request", body, timeout=10
            )
            found += answer["records"][kind]
            if (after := answer["next"]) is None:
                return found


@pytest.fixture
async def consent(vhost: Vhost) -> AsyncIterator[Consent]:
    queue = Queue(
        "consent.commands",
        {"x-queue-type": "quorum"},
        tuple(
            Binding(Exchange("consent.commands", "direct"), key)
            for key in ("erasure.receipt", "permit.request", "permit.return")
        ),
    )
    async with Broker.connect(vhost.url("consent"), "consent") as broker:
        await connected(broker)
        await broker.declare(queue)
        async with Requester(broker, "consent") as requester:
            subject = Consent(broker, requester)
            async with consume(broker, queue, subject.handle, prefetch=10):
                yield subject


async def words(subject: Alerts) -> str:
    """Everything the schema holds, as text."""
    parts = [
        await subject.scalar(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t")
        for table in ("delivery", "attempt", "escalation", "outbox")
    ]
    return " ".join(parts)


async def test_what_was_sent_is_forgotten_and_still_counted(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    hers = await subject.accept(
        payload={"text": "nowy lead", "email": "Anna@Example.com", "name": "Anna"},
        dedup_key=f"lead-{ANNA}",
    )
    others = await subject.accept(payload={"text": f"do joanna@example.com, nie {ANNA}.pl"})
    for alert_id in (hers, others):
        await subject.until(alert_id, "delivered")
    before = await subject.check()
    assert [each["id"] for each in await consent.held()] == [hers]
    tried = await consent.attempts()
    assert [(each["alert_id"], each["outcome"]) for each in tried] == [(hers, "delivered")]
    for _ in range(2):
        await consent.erased()
    assert consent.receipts[0]["erasure_id"] == ERASURE
    assert consent.receipts[0]["service"] == "alerts"
    assert await consent.held() == []
    row = await subject.row(hers)
    assert (row.state, row.payload, row.dedup_key) == ("delivered", None, None)
    assert (await subject.row(others)).payload is not None
    assert await subject.check() == before
    assert "Anna" not in await words(subject)


async def test_a_person_of_whom_more_is_held_than_one_message_takes_is_told_of_it_all(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    await subject.failed(100, f"{ANNA} {'x' * 200_000}")  # 20 MB; RabbitMQ takes 16
    held = await consent.held()
    assert len(held) == len({each["id"] for each in held}) == 100


async def test_what_was_still_to_be_sent_is_discarded_and_its_copies_leave_unseen(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    await subject.sandbox.behave("slack", status=500)
    waiting = await subject.accept(payload={"text": f"dzwoń do {ANNA}"})
    # No permit is answered, so this one waits, too.
    once = await subject.accept(
        "followup", payload={"to": ANNA, "subject": "s", "text": "t"}, target="email", once=ONCE
    )
    await until_tried(subject, waiting, "slack")
    await until_tried(subject, once, "email")
    await consent.erased()
    await subject.sandbox.heal()
    for alert_id, target in ((waiting, "slack"), (once, "email")):
        row = await subject.row(alert_id, target)
        assert (row.state, row.reason, row.payload) == ("discarded", "erased", None)
    assert (await subject.row(once, "email")).once_address == "erased"
    assert ANNA not in await words(subject)

    async def drained() -> bool:
        return not any([await subject.depth(f"alerts.{name}") for name in QUEUES])

    await eventually(drained)  # the copies come back from .retry, and are acked
    assert await subject.sandbox.received("slack") == []
    assert await subject.sandbox.mails() == []
    assert (await subject.check())["discarded"] == 2


QUEUES = ("slack", "slack.retry", "email", "email.retry")


async def until_tried(subject: Alerts, alert_id: str, target: str) -> None:
    async def tried() -> bool:
        row = await subject.row(alert_id, target)
        return bool(row is not None and row.attempt and row.state == "pending")

    await eventually(tried)


async def test_what_is_being_sent_is_waited_for(alerts: StartAlerts, consent: Consent) -> None:
    subject = await alerts(slack={"timeout": 4.0, "retry_delays": [4.5, 4.5]})
    await subject.sandbox.behave("slack", delay_seconds=1.5)
    alert_id = await subject.accept(payload={"text": ANNA})
    await subject.until(alert_id, "sending")
    await consent.erased()
    row = await subject.row(alert_id)
    assert (row.state, row.payload) == ("delivered", None)


async def test_what_intake_had_in_hand_is_forgotten_too(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    async with subject.engine.begin() as tx:
        await tx.execute(sa.text("INSERT INTO ledger_total (target) VALUES ('slack')"))
        await subject.accept(payload={"text": ANNA})  # its row waits for ours, uncommitted

        async def in_hand() -> bool:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return await subject.depth("alerts.intake") == 0 and bool(await subject.scalar(waits))

        await eventually(in_hand)
        await consent.order()
        await until(lambda: '"event": "person.erased"' in subject.log())
    await until(lambda: bool(consent.receipts))
    assert await subject.scalar("SELECT count(*) FROM delivery") == 1
    assert ANNA not in await words(subject)


async def test_an_erased_alert_cannot_be_retried_by_hand(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    await subject.sandbox.behave("slack", status=400)
    alert_id = await subject.accept(payload={"text": ANNA})
    await subject.until(alert_id, "failed")
    await consent.erased()
    answer = await subject.http("POST", "/api/dlq/retry", {"ids": [alert_id]})
    assert answer == (200, {"matched": 1, "requeued": 0, "skipped": 1, "without_payload": 1})
    listed = (await subject.http("GET", "/api/dlq/failed"))[1]["items"]
    assert [(each["id"], each["payload"]) for each in listed] == [(alert_id, None)]


async def test_a_service_mail_of_consent_leaves_without_a_permit(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    alert_id = await subject.accept(
        "email", payload={"to": ANNA, "subject": "Potwierdź", "text": "link"}, source="consent"
    )
    await subject.until(alert_id, "delivered", "email")
    (mail,) = await subject.sandbox.mails(ANNA)
    assert mail["Subject"] == "Potwierdź"


async def test_an_address_is_found_as_a_whole_however_it_is_written(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    theirs = (
        ANNA,
        f'{{"email": "{ANNA.upper()}"}}',
        f"<{ANNA}>, mailto:{ANNA}",
        "https://x.pl/?email=anna%40example.com&a=1",
        f"Napisz do {ANNA}.",
    )
    others = (
        "joanna@example.com",
        "anna@example.com.pl",
        "anna+1@example.com",
        "x.anna@example.com",
        "anna@example-com.pl",
    )
    for text in (*theirs, *others):
        await subject.until(await subject.accept(payload={"text": text}), "delivered")
    found = {each["payload"]["text"] for each in await consent.held()}
    assert found == set(theirs)
    assert set(await consent.addresses()) == {ANNA, *others}


async def test_a_domain_is_found_as_it_is_written_and_as_it_is_looked_up(
    alerts: StartAlerts, consent: Consent
) -> None:
    subject = await alerts()
    theirs = (
        "jan@żółw.pl",
        "JAN@ŻÓŁW.PL",
        unicodedata.normalize("NFD", "Napisz: jan@żółw.pl."),
        "jan@xn--w-uga1v8h.pl",
    )
    for text in (*theirs, "bożjan@żółw.pl", "żjan@żółw.pl", "jan@żółw.plż", "jan@zolw.pl"):
        await subject.until(await subject.accept(payload={"text": text}), "delivered")
    found = {each["payload"]["text"] for each in await consent.held("Jan@Żółw.pl")}
    assert found == set(theirs)


async def test_a_ledger_of_many_batches_is_looked_through_to_its_end(
    alerts: StartAlerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persons, "BATCH", 2)
    subject = await alerts()
    for number in range(5):
        text = ANNA if number % 2 else "nobody"
        await subject.until(await subject.accept(payload={"text": text}), "delivered")
    found, after = 0, persons.BEGINNING
    async with subject.engine.connect() as tx:
        while (looked := await persons.look(tx, ANNA, after)).after is not None:
            found, after = found + len(looked.rows), looked.after
    assert found == 2
