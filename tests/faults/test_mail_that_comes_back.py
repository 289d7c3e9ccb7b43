"""Mail that comes back while what reads it dies, by seed (P13, and P4 for what withdraws).

The mailbox is a real Dovecot. Each mail acts once: a reply joins its conversation, a bounce ends an
address, a complaint and a mailed unsubscribe are one withdrawal; who did neither keeps the consent.
"""

import asyncio
import random

import pytest

from tests.integration.system.test_mail_back import (  # noqa: F401 - system is a fixture
    about,
    listed,
    moved,
    sent,
    system,
    trail,
)
from tests.support.dovecot import Dovecot, needs_dovecot, running
from tests.support.eventually import eventually
from tests.support.ports import Ports
from tests.support.stack import Stack

pytestmark = [pytest.mark.faults, pytest.mark.promise("P4", "P13"), needs_dovecot]

KINDS = ("reply-files", "auto-outlook-pl", "postfix", "arf-abuse", "unsubscribe-apple")
WITHDRAW = {"arf-abuse": "complaint", "unsubscribe-apple": "mail"}
PEOPLE = 8
REPLIES = """
    SELECT count(*) FROM followups.chat_message
    JOIN followups.chat_conversations AS c ON c.id = conversation_id
    WHERE body LIKE '✉%%' AND email = %s
"""


LOST = ["followups", "consent", "alerts", "postgres", "rabbitmq", "the mailbox"]


async def loses(stack: Stack, dovecot: Dovecot, name: str) -> None:
    if name != "the mailbox":
        async with stack.without(name):
            await asyncio.sleep(1)
        return
    await asyncio.to_thread(dovecot.stop)
    await asyncio.sleep(1)
    await asyncio.to_thread(dovecot.start)


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_mail_acts_once_whatever_dies(
    system: Stack,  # noqa: F811
    ports: Ports,
    seed: int,
) -> None:
    chance = random.Random(seed)
    people = [await sent(system) for _ in range(PEOPLE)]
    got = {address: chance.sample(KINDS, chance.randint(1, 3)) for address, _ in people}
    mails = [about(mail, name, who) for who, mail in people for name in got[who]]
    chance.shuffle(mails)
    with running(ports) as dovecot:
        system.changes["followups"]["INBOX_URL"] = dovecot.url()
        await system.kill9("followups")
        await system.start("followups")
        for name in chance.sample(LOST, len(LOST)):
            dovecot.deliver(*(mails.pop() for _ in range(min(3, len(mails)))))
            await asyncio.sleep(chance.random())
            await loses(system, dovecot, name)
        dovecot.deliver(*mails)
        await eventually(lambda: moved(dovecot, sum(map(len, got.values()))), 180)
        assert dovecot.count() == dovecot.failed == 0
    assert {who for who, names in got.items() if "postfix" in names} <= await listed(system)
    for who, names in got.items():
        (replies,) = system.query(REPLIES, who)
        assert replies.count == ("reply-files" in names), who
        wanted = sorted(WITHDRAW[name] for name in names if name in WITHDRAW)

        async def withdrawn(who: str = who) -> list[str]:
            return sorted(str(by) for did, by in await trail(system, who) if did == "unsubscribe")

        found = await eventually(withdrawn, 60, so=lambda all_, n=bool(wanted): bool(all_) == n)  # type: ignore[misc]
        assert set(found) <= set(wanted), who
        assert len(found) == len(set(found)), who
