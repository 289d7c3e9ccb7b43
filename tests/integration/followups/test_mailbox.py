"""The company's mailbox, on a real Dovecot: each mail acts once, and none is lost (P13)."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from imapclient.exceptions import IMAPClientError, LoginError

from services.followups.inbox import mailbox as module
from services.followups.inbox.mailbox import Mailbox
from services.followups.settings import parse_mailbox
from tests.integration.followups.conftest import MailBack
from tests.support.dovecot import Dovecot, needs_dovecot
from tests.support.eventually import eventually
from tests.support.proxy import UP, Proxy

pytestmark = [needs_dovecot, pytest.mark.promise("P13")]

KILLED = Path(__file__).with_name("killed_mailbox.py")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)


@pytest.fixture
async def proxy(dovecot: Dovecot) -> AsyncIterator[Proxy]:
    async with Proxy(dovecot.port) as opened:
        yield opened


def opened(mail: MailBack, url: str, *, is_shared: bool = False) -> Mailbox:
    return Mailbox(url, mail.inbox, is_shared=is_shared)


async def looked(mailbox: Mailbox, times: int = 1) -> None:
    for _ in range(times):
        await mailbox.look()
    mailbox._drop()


async def kinds(mail: MailBack) -> list[str]:
    return sorted(row["kind"] for row in await mail.rows())


async def replies(mail: MailBack) -> int:
    """Count how often a reply joined the conversation."""
    return len([each for each in await mail.world.said() if each.startswith("✉")])


@pytest.mark.parametrize("separator", [".", "/"])
async def test_each_mail_is_taken_once_and_moved(
    mail: MailBack, dovecot: Dovecot, separator: str
) -> None:
    dovecot.stop()
    dovecot.separator = separator
    dovecot.start()
    names = ("reply-files", "postfix", "auto-list", "unknown", "unsubscribe-apple")
    dovecot.deliver(*(mail.raw(name) for name in names), mail.raw("postfix"))
    await looked(opened(mail, dovecot.url()), 2)
    assert await kinds(mail) == ["auto", "hard", "reply", "unknown", "unsubscribe"]
    assert (dovecot.count(), dovecot.done, dovecot.failed) == (0, 6, 0)
    assert dovecot.count(f"Ostoja{separator}done", "SEEN") == 6


async def test_a_mail_that_arrives_is_taken_at_once(
    mail: MailBack, dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 60.0)
    mailbox = opened(mail, dovecot.url())

    async def reading() -> None:
        while True:
            await mailbox.look()

    task = asyncio.create_task(reading())
    await eventually(lambda: asyncio.to_thread(dovecot.folder.joinpath("mail", "cur").exists))
    await asyncio.sleep(0.5)
    dovecot.deliver(mail.raw("postfix"))

    async def done() -> bool:
        return dovecot.done == 1

    await eventually(done, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("step", ["fetched", "stored", "committed", "seen", "moved"])
async def test_killed_at_each_step_a_mail_acts_once(
    mail: MailBack, dovecot: Dovecot, step: str
) -> None:
    dovecot.deliver(mail.raw("reply-files"))
    url = mail.world.engine.url.render_as_string(hide_password=False)
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(KILLED), url, dovecot.url(), step],
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert await replies(mail) == (step in {"committed", "seen", "moved"})
    assert dovecot.count() + dovecot.done == 1  # it is somewhere
    await looked(opened(mail, dovecot.url()), 2)
    assert (await replies(mail), await kinds(mail)) == (1, ["reply"])
    assert (dovecot.count(), dovecot.done) == (0, 1)
    assert len(await mail.told()) == 1


@pytest.mark.parametrize("command", [b"FETCH", b"STORE", b"MOVE"])
@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
async def test_a_connection_lost_at_each_command_loses_nothing(
    mail: MailBack, dovecot: Dovecot, proxy: Proxy, command: bytes, cut: str
) -> None:
    dovecot.deliver(mail.raw("reply-files"), mail.raw("postfix"))
    mailbox = opened(mail, dovecot.url(proxy.port))
    reached = getattr(proxy, cut)(UP, command)
    with pytest.raises((OSError, IMAPClientError)):
        await mailbox.look()
    assert reached.is_set()
    await looked(mailbox, 2)
    assert await kinds(mail) == ["hard", "reply"]
    assert await replies(mail) == 1
    assert (dovecot.count(), dovecot.done) == (0, 2)


async def test_two_readers_act_once(mail: MailBack, dovecot: Dovecot) -> None:
    dovecot.deliver(*(mail.raw("auto-list", zarzadzenie=f"z{n}") for n in range(8)))
    dovecot.deliver(mail.raw("reply-files"))
    both = [opened(mail, dovecot.url()) for _ in range(2)]

    async def read(mailbox: Mailbox) -> None:
        for _ in range(6):
            with suppress(IMAPClientError):  # the other one has moved it meanwhile
                await mailbox.look()
        mailbox._drop()

    await asyncio.gather(*map(read, both))
    assert await replies(mail) == 1
    assert (dovecot.count(), dovecot.done) == (0, 9)


async def test_a_server_that_stops_answering_is_left(
    mail: MailBack, dovecot: Dovecot, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 1.0)
    monkeypatch.setattr(Mailbox._call, "__kwdefaults__", {"seconds": 1.0})
    dovecot.deliver(mail.raw("postfix"))
    mailbox = opened(mail, dovecot.url(proxy.port))
    stalled = proxy.stall_before(UP, b"FETCH")
    with pytest.raises((TimeoutError, OSError, IMAPClientError)):
        await mailbox.look()
    assert stalled.is_set()
    await proxy.resume()
    await looked(mailbox)
    assert (await kinds(mail), dovecot.done) == (["hard"], 1)


async def test_a_slow_server_is_read(mail: MailBack, dovecot: Dovecot, proxy: Proxy) -> None:
    dovecot.deliver(mail.raw("postfix"))
    proxy.delay = 0.1
    await looked(opened(mail, dovecot.url(proxy.port)))
    assert dovecot.done == 1


async def test_a_server_that_is_away_or_refuses_is_tried_again(
    mail: MailBack, dovecot: Dovecot
) -> None:
    dovecot.deliver(mail.raw("postfix"))
    mailbox = opened(mail, dovecot.url())
    dovecot.stop()
    with pytest.raises(OSError, match="refused"):
        await mailbox.look()
    dovecot.password = "changed"
    dovecot.start()
    with pytest.raises(LoginError):
        await mailbox.look()
    assert dovecot.count() == 1
    await looked(opened(mail, dovecot.url()))
    assert dovecot.done == 1


async def test_a_mailbox_in_which_nothing_can_be_moved_acts_once(
    mail: MailBack, dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    dovecot.deliver(mail.raw("reply-files"), mail.raw("postfix"))
    mailbox = opened(mail, dovecot.url())
    await mailbox.look()
    dovecot.deliver(mail.raw("auto-list"), mail.raw("unknown"))
    dovecot.jam()
    for _ in range(2):
        with pytest.raises(IMAPClientError):
            await mailbox.look()
    assert await kinds(mail) == ["auto", "hard", "reply", "unknown"]
    assert dovecot.count() == 2
    dovecot.jam(ends=True)
    await looked(mailbox, 2)
    assert (dovecot.count(), dovecot.done) == (0, 4)
    assert await replies(mail) == 1


async def test_a_mailbox_over_its_quota_acts_once_and_is_emptied_once_there_is_room(
    mail: MailBack, dovecot: Dovecot
) -> None:
    dovecot.deliver(mail.raw("reply-files"), mail.raw("postfix"))
    dovecot.fill()
    with pytest.raises(AssertionError, match="OVERQUOTA"):
        dovecot.deliver(mail.raw("auto-list"))
    mailbox = opened(mail, dovecot.url())
    for _ in range(2):
        with pytest.raises(IMAPClientError, match="OVERQUOTA"):
            await mailbox.look()
    assert await kinds(mail) == ["hard", "reply"]
    assert dovecot.count() == 2
    dovecot.fill(ends=True)
    await looked(opened(mail, dovecot.url()), 2)
    assert (dovecot.count(), dovecot.done) == (0, 2)
    assert await replies(mail) == 1


async def test_a_mail_that_cannot_be_read_is_kept_and_on_call_hears_of_it(
    mail: MailBack, dovecot: Dovecot
) -> None:
    bad = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 1001
    dovecot.deliver(bad, mail.raw("postfix"))
    await looked(opened(mail, dovecot.url()), 2)
    assert (dovecot.count(), dovecot.done, dovecot.failed) == (0, 1, 1)
    assert len([each for each in await mail.told() if "UID" in each["said"][0]]) == 1


async def test_in_a_shared_mailbox_only_mail_about_a_step_is_moved(
    mail: MailBack, dovecot: Dovecot
) -> None:
    private = [mail.raw("unknown", Pruszkowie=f"Krakowie {n}") for n in range(3)]
    dovecot.deliver(private[0], mail.raw("reply-files"), *private[1:])
    mailbox = opened(mail, dovecot.url(), is_shared=True)
    await looked(mailbox, 2)
    assert await kinds(mail) == ["reply"]
    assert (dovecot.count(), dovecot.count(which="UNSEEN"), dovecot.done) == (3, 3, 1)
    bad = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 1001
    dovecot.deliver(bad, mail.raw("postfix"))
    await looked(mailbox)
    assert (dovecot.count(), dovecot.done, dovecot.failed) == (4, 2, 0)
    told = len(await mail.told())
    assert await mail.world.sql("SELECT left_alone FROM mailbox") == [{"left_alone": 4}]
    await mail.world.sql("UPDATE mailbox SET told_at = now() - interval '25 hours'")
    await mail.inbox.tell_of_the_rest()
    await mail.inbox.tell_of_the_rest()
    assert [each["said"] for each in await mail.told()][told:] == [["4"]]


async def test_a_mailbox_with_new_uids_is_read_anew_and_acts_once(
    mail: MailBack, dovecot: Dovecot
) -> None:
    dovecot.deliver(mail.raw("unknown"), mail.raw("reply-files"))
    mailbox = opened(mail, dovecot.url(), is_shared=True)
    await looked(mailbox)
    dovecot.deliver(mail.raw("reply-files"))
    dovecot.renumber()
    dovecot.deliver(mail.raw("postfix"))
    await looked(mailbox, 2)
    assert await kinds(mail) == ["hard", "reply"]
    assert await replies(mail) == 1
    assert dovecot.done == 3


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("imap://u:p@mail.example.com", "needs imaps"),
        ("imaps://u@mail.example.com", "needs user, password"),
        ("imaps://u:pa/ss@mail.example.com", "needs user, password"),
        ("imaps://u:p@mail.example.com:x", "port is no number"),
        ("https://u:p@mail.example.com", "needs imaps"),
    ],
)
def test_a_wrong_url_is_named_without_its_password(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        parse_mailbox(url)
    assert "pa" not in str(caught.value).replace("password", "")


def test_a_url_may_have_escaped_characters() -> None:
    found: tuple[Any, ...] = parse_mailbox("imaps://a%40b.pl:p%2Fq@mail.example.com:1993/Do%20nas")
    assert found == (True, "mail.example.com", 1993, "a@b.pl", "p/q", "Do nas")
