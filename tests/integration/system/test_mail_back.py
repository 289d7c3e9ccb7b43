"""Mail that comes back, on the whole system: by HTTP, and by a real mailbox under kill -9 (P13)."""

import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pytest_aiohttp.plugin import AiohttpClient

from deploy.sandbox import mailpit
from deploy.sandbox.mail import Mail
from deploy.sandbox.recorder import Recorder
from tests.support.dovecot import Dovecot, needs_dovecot, running
from tests.support.eventually import eventually
from tests.support.mails import STEP, sample
from tests.support.ports import Ports
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.promise("P13")

BOUNCES = {"BOUNCE_ADDRESS": "bounce@example.com"}


@pytest.fixture
async def system(stack: Stack) -> AsyncIterator[Stack]:
    await stack.sandbox.reset()
    stack.changes["followups"] |= BOUNCES
    await stack.stop("followups")
    await stack.start("followups")
    yield stack
    for name in (*BOUNCES, "INBOX_URL"):
        stack.changes["followups"].pop(name, None)
    await stack.stop("followups")
    await stack.start("followups")


async def sent(stack: Stack) -> tuple[str, dict[str, Any]]:
    """Return an address and the follow-up that it got."""
    address = fresh_address()
    await stack.opt_in(address)
    await stack.follow_up(address)

    async def arrived() -> Any:
        found = await stack.sandbox.mails(address)
        return next((each for each in found if "mailto:" in str(each["ListUnsubscribe"])), None)

    return address, await eventually(arrived, 60)


def about(mail: dict[str, Any], name: str, address: str) -> bytes:
    """Return this sample, about a mail that was sent."""
    raw = sample(name, uuid.UUID(mail["MessageID"].partition("@")[0]), address)
    bounce, unsubscribe = mail["ReturnPath"], mail["ListUnsubscribe"]["Header"]
    mailto = re.search(r"mailto:([^?>]+)", unsubscribe)
    assert mailto is not None
    for action, ours in (("b", bounce), ("u", mailto[1])):
        raw = re.sub(rb"bounce\+%s\w{42}@example\.com" % action.encode(), ours.encode(), raw)
    assert str(STEP).encode() not in raw
    theirs = address.partition("@")[0].encode()  # each mail has a Message-ID of its own
    return raw.replace(b"@mail.example.org>", b"@%s.example.org>" % theirs)


async def post(stack: Stack, raw: bytes) -> str:
    headers = {"X-API-KEY": stack.values["SERVICE_API_KEY"], "Content-Type": "message/rfc822"}
    answer = await stack.http("POST", "/api/mail/inbound", raw=raw, headers=headers)
    assert answer.status == 200, answer
    return str(answer.body["outcome"])


async def listed(stack: Stack) -> set[str]:
    answer = await stack.http("GET", "/api/mail/undeliverable", key="service")
    return {each["email"] for each in answer.body["items"]}


async def trail(stack: Stack, address: str) -> list[tuple[str, str | None]]:
    entries = (await stack.audit(address))["entries"]
    return [(each["action"], each["evidence"].get("source")) for each in entries]


async def test_a_follow_up_names_itself_and_what_comes_back_finds_it(system: Stack) -> None:
    address, mail = await sent(system)
    assert re.fullmatch(r"bounce\+b[a-z2-7]{42}@example\.com", mail["ReturnPath"])
    assert await post(system, about(mail, "reply-gmail-pl", address)) == "reply"
    assert await post(system, about(mail, "reply-gmail-pl", address)) == "duplicate"

    await system.in_slack("czwartek po 17")
    assert await post(system, about(mail, "postfix", address)) == "hard"
    assert address in await listed(system)
    enrolled = {"email": address, "delay_seconds": 0}
    refused = await system.http("POST", "/api/followups", enrolled, key="service")
    assert refused.status == 409


async def test_the_buttons_of_the_sandbox_give_it_a_reply_a_bounce_and_a_complaint(
    system: Stack, aiohttp_client: AiohttpClient
) -> None:
    address, mail = await sent(system)
    url = f"{system.sandbox.mail_url}/api/v1/message/{mail['ID']}/raw"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        kept = Mail(mail["ReturnPath"], [address], await answer.read())
    recorder = Recorder(["email"])
    recorder.record("email", kept, accepted=True, answered=250)
    key = system.values["SERVICE_API_KEY"]
    client = await aiohttp_client(mailpit.create_app(recorder, system.url, key))
    page = await (await client.get(f"/view/{kept.id}")).text()
    for kind, outcome in (("reply", "reply"), ("bounce", "hard"), ("complaint", "complaint")):
        assert f'formaction="/view/{kept.id}/{kind}"' in page
        said = await (await client.post(f"/view/{kept.id}/{kind}")).text()
        assert re.search(rf"Ostoja answered: [^<]*{outcome}", said)
    assert address in await listed(system)
    without = await aiohttp_client(mailpit.create_app(recorder, system.url, ""))
    assert "formaction" not in await (await without.get(f"/view/{kept.id}")).text()


@needs_dovecot
async def test_mail_of_a_real_mailbox_acts_once_while_its_reader_is_killed(
    system: Stack, ports: Ports
) -> None:
    with running(ports) as dovecot:
        people = [await sent(system) for _ in range(3)]
        kinds = ("reply-files", "auto-outlook-pl", "postfix")
        for address, mail in people:
            dovecot.deliver(*(about(mail, name, address) for name in kinds))
        system.changes["followups"]["INBOX_URL"] = dovecot.url()
        for done in (1, 4):
            await system.kill9("followups")
            await system.start("followups")
            await eventually(lambda done=done: moved(dovecot, done), 90)  # type: ignore[misc]
        await system.kill9("followups")
        await system.start("followups")
        await eventually(lambda: moved(dovecot, len(people) * len(kinds)), 120)
        assert dovecot.count() == dovecot.failed == 0
    assert {address for address, _ in people} <= await listed(system)
    for address, _ in people:
        (replies,) = system.query(
            "SELECT count(*) FROM followups.chat_message JOIN followups.chat_conversations AS c "
            "ON c.id = conversation_id WHERE body LIKE '✉%%' AND email = %s",
            address,
        )
        assert replies.count == 1


async def moved(dovecot: Dovecot, count: int) -> bool:
    return dovecot.done >= count
