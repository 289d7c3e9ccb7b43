"""What a person may ask for, on the whole system: what do you hold on me, and erase it."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import psycopg2
import redis
from psycopg2 import sql

from deploy.up.environment import WITH_TABLES
from libs.common.database.postgres import connect
from services.alerts.upkeep import retention as alerts_retention
from services.followups import retention as followups_retention
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import LEAD, System, fresh_address

DAY = 86400.0


async def lead(stack: System, address: str) -> None:
    """Somebody whom every service knows."""
    answer = await stack.http(
        "POST", "/api/chatbot/chat", LEAD | {"session_id": address, "email": address}
    )
    assert answer.status == 200, answer
    await stack.opt_in(address)
    await stack.follow_up(address, delay_seconds=3600)

    await stack.in_slack(address)
    await eventually(stack.balanced, 30)


async def erase(stack: System, **who: str) -> None:
    """Have an admin erase somebody, and see that it has begun."""
    answer = await stack.http("POST", "/api/consent/erase", who, key="admin")
    assert (answer.status, answer.body["erasure"]) == (200, {"status": "in_progress"}), answer


async def export(stack: System, address: str) -> Any:
    answer = await stack.http("GET", f"/api/consent/export/{address}", key="admin")
    assert answer.status == 200, answer
    return answer.body


async def done(stack: System, address: str) -> None:
    """Wait until the erasure of an address is over."""
    await eventually(
        lambda: stack.audit(address), 60, so=lambda found: found["erasure"]["status"] == "done"
    )


async def test_a_lead_that_gave_its_address_after_it_had_qualified_is_exported_and_erased(
    stack: Stack,
) -> None:
    address, session = fresh_address(), f"s-{uuid.uuid4().hex}"
    first = {**LEAD, "session_id": session, "phone": f"+4860{uuid.uuid4().int % 10**7:07}"}
    answer = await stack.http("POST", "/api/chatbot/chat", first)
    assert answer.status == 200, answer
    await qualified(stack, session)
    later = {"session_id": session, "message": f"Mój adres: {address}"}
    assert (await stack.http("POST", "/api/chatbot/chat", later)).status == 200
    held = (await export(stack, address))["services"]["alerts"]["deliveries"]
    of_before = [each for each in held if address not in str(each["payload"])]
    assert {each["target"] for each in of_before} == {"slack", "monday"}
    assert {each["payload"]["session_id"] for each in held} == {session}

    await erase(stack, email=address)
    await done(stack, address)
    await nowhere(stack, session)


async def test_whoever_left_only_a_number_is_exported_and_erased_by_it(stack: Stack) -> None:
    session, number = f"s-{uuid.uuid4().hex}", f"+4851{uuid.uuid4().int % 10**7:07}"
    said = {**LEAD, "session_id": session, "phone": number}
    answer = await stack.http("POST", "/api/chatbot/chat", said)
    assert answer.status == 200, answer
    await qualified(stack, session)
    held = await export(stack, quote(number))
    assert held["incomplete"] == []
    assert held["services"]["followups"]["messages"][0]["body"] == said["message"]
    targets = {each["target"] for each in held["services"]["alerts"]["deliveries"]}
    assert targets >= {"slack", "monday"}
    for body in ({}, {"phone": number, "email": "a@example.com"}, {"phone": "600"}):
        refused = await stack.http("POST", "/api/consent/erase", body, key="admin")
        assert refused.status == 422, refused
    written = {"phone": f"{number[:3]} {number[3:6]} {number[6:9]} {number[9:]}"}
    await erase(stack, **written)
    await done(stack, quote(number))
    await nowhere(stack, session, number, number[3:])
    assert (await stack.http("GET", "/api/consent/audit/verify", key="admin")).body["ok"]


async def test_what_is_purged_while_the_processing_is_restricted_is_still_exported(
    stack: Stack,
) -> None:
    address, session = fresh_address(), f"s-{uuid.uuid4().hex}"
    said = {**LEAD, "session_id": session, "email": address}
    assert (await stack.http("POST", "/api/chatbot/chat", said)).status == 200
    await qualified(stack, session)
    await eventually(stack.balanced, 30)
    path, who = "/api/consent/restrict", {"email": address}
    done = await stack.http("POST", path, who, key="admin")
    assert (done.status, done.body["incomplete"]) == (200, []), done

    (talk,) = stack.query(
        "UPDATE followups.chat_conversations SET updated_at = now() - interval '400 days' "
        "WHERE session_id = %s RETURNING id",
        session,
    )
    stack.query(
        "UPDATE followups.lead SET updated_at = now() - interval '400 days' "
        "WHERE conversation_id = %s",
        talk.id,
    )
    stack.query("DELETE FROM followups.followup_event WHERE conversation_id = %s", talk.id)
    stack.query(
        "UPDATE alerts.delivery SET accepted_at = accepted_at - interval '400 days', "
        "created_at = created_at - interval '400 days', "
        "finished_at = finished_at - interval '400 days' WHERE payload ->> 'session_id' = %s",
        session,
    )
    async with connect(stack.database.of("followups"), application_name="purge") as engine:
        assert await followups_retention.forget(engine, 365) >= 1
    async with connect(stack.database.of("alerts"), application_name="purge") as engine:
        await alerts_retention.run(engine, delivered=DAY, payloads=30 * DAY)

    held = (await export(stack, address))["services"]
    assert not held["followups"]["messages"]
    assert not held["alerts"]["deliveries"]
    kept = held["consent"]["kept_while_restricted"]["services"]
    assert kept["followups"]["messages"][0]["body"] == LEAD["message"]
    assert {each["payload"]["session_id"] for each in kept["alerts"]["deliveries"]} == {session}
    lifted = await stack.http("POST", path, who | {"lifted": True}, key="admin")
    assert lifted.status == 200
    assert (await export(stack, address))["services"]["consent"]["kept_while_restricted"] is None


async def test_an_unavailable_service_is_named_in_an_export_and_erases_later(stack: Stack) -> None:
    address = fresh_address()
    await lead(stack, address)
    await stack.kill9("alerts")
    try:
        assert (await export(stack, address))["incomplete"] == ["alerts"]
        await erase(stack, email=address)

        await eventually(
            lambda: stack.audit(address),
            so=lambda found: found["erasure"]["waiting_for"] == ["alerts"],
        )
    finally:
        await stack.start("alerts")
    await done(stack, address)
    assert not any((await export(stack, address))["services"]["alerts"].values())


TOLD = {
    "alerts.alert_case": ("alerts", "cases"),
    "alerts.attempt": ("alerts", "attempts"),
    "alerts.delivery": ("alerts", "deliveries"),
    "alerts.event": ("alerts", "events"),
    "followups.chat_email": ("followups", "messages"),
    "followups.chat_conversations": ("followups", "conversations"),
    "followups.chat_message": ("followups", "messages"),
    "followups.followup_event": ("followups", "followups"),
    "followups.lead": ("followups", "leads"),
    "followups.lead_contact": ("followups", "leads"),
}
"""Where an export tells what a table holds. (Consent's hold nothing in clear.)"""
FLEETING = {f"{service}.outbox" for service in WITH_TABLES} | {"alerts.escalation"}
"""Told somebody else in the next moment; what is in the other place is told from there."""


def places(stack: Stack, *words: str) -> set[str]:
    """Name every table, key of Redis and queue in which one of these words stands."""
    return {
        name
        for name, text in (*_rows(stack), *_keys(stack), *_messages(stack))
        if any(word in text for word in words)
    }


async def qualified(stack: Stack, session: str) -> None:
    await until(lambda: "alerts.delivery" in places(stack, session), 30)


async def nowhere(stack: Stack, *words: str) -> None:
    """Wait until none of these words stands anywhere."""
    await until(lambda: not places(stack, *words), 30)


def _rows(stack: Stack) -> Iterator[tuple[str, str]]:
    with closing(psycopg2.connect(stack.database.superuser_url)) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY(%s)",
            (list(WITH_TABLES),),
        )
        for names in cursor.fetchall():
            cursor.execute(
                sql.SQL("SELECT coalesce(string_agg(t::text, ' '), '') FROM {} t").format(
                    sql.Identifier(*names)
                )
            )
            (text,) = cursor.fetchone() or ("",)
            yield ".".join(names), text


def _keys(stack: Stack) -> Iterator[tuple[str, str]]:
    with closing(redis.Redis.from_url(stack.redis.url)) as client:
        for key in client.scan_iter():
            yield "Redis", f"{key!r} {client.dump(key)!r}"


def _messages(stack: Stack) -> Iterator[tuple[str, str]]:
    peek = {"count": 100, "ackmode": "ack_requeue_true", "encoding": "auto"}
    for queue in stack.vhost.call("GET", "queues"):
        if queue.get("exclusive") or not queue.get("messages"):
            continue
        yield queue["name"], str(stack.vhost.call("POST", "queues", f"{queue['name']}/get", peek))


async def test_an_export_has_every_copy_and_an_erasure_leaves_none(stack: Stack) -> None:
    address, phone = fresh_address(), str(uuid.uuid4().int)[:9]
    name = f"Żaneta{uuid.uuid4().hex[:8]}"
    wrong, right = f"nie.{address}", address
    session = f"s-{uuid.uuid4().hex}"

    async def says(message: str, **more: Any) -> None:
        body = {"message": message, "session_id": session, **more}
        answer = await stack.http("POST", "/api/chatbot/chat", body)
        assert answer.status == 200, answer

    await says(f"Dzień dobry, mój adres: {wrong}", name=name)
    await says(f"Przepraszam, jednak {right}, tel. +48{phone}")
    await lead(stack, address)
    await stack.sandbox.behave("sms", status=422)  # fails for good, and a person is told
    alert = {"event_type": "sms", "payload": {"text": f"{name}, {address}"}}
    answer = await stack.http("POST", "/api/alerts", alert, key="service")
    assert answer.status == 202, answer

    await eventually(
        lambda: stack.state(answer.body["id"]),
        30,
        so=lambda body: any(each["state"] == "failed" for each in body.get("deliveries", ())),
    )

    mine = (address, address.upper(), name, phone)
    held = (await export(stack, address))["services"]
    known = places(stack, *mine)
    assert known - FLEETING <= TOLD.keys(), "a table that no export tells of"
    for table in known & TOLD.keys():
        service, kind = TOLD[table]
        assert held[service][kind], table
    assert {"followups.chat_message", "alerts.delivery", "alerts.alert_case"} <= known

    for each in (wrong, right):  # under whichever address they ask
        await erase(stack, email=each)
        await done(stack, each)
        if each == wrong:
            assert wrong not in str((await export(stack, right))["services"]["followups"])
    await nowhere(stack, *mine, wrong)
