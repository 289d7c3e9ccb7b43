import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest
from aiohttp import ClientSession

from tests.support.eventually import eventually
from tests.support.sandbox import Sandbox


@pytest.fixture
async def mailbox(sandbox: Sandbox) -> AsyncIterator[ClientSession]:
    async with ClientSession(sandbox.mail_url) as session:
        yield session


@pytest.fixture
async def smtp(sandbox: Sandbox) -> AsyncIterator[aiosmtplib.SMTP]:
    client = aiosmtplib.SMTP(
        hostname=sandbox.smtp_host, port=sandbox.smtp_port, start_tls=False, timeout=5
    )
    await client.connect()
    yield client
    client.close()


def mail(subject: str = "Wycena", to: str = "Jan <jan@example.com>") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ostoja <biuro@example.com>"
    message["To"] = to
    message["Subject"] = subject
    message["Message-ID"] = "<1.email@example.com>"
    message["List-Unsubscribe"] = "<https://example.com/unsubscribe?token=t>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content("Zażółć gęślą jaźń\n.kropka na początku\n")
    message.add_alternative("<p>Zażółć</p>", subtype="html")
    return message


async def get(mailbox: ClientSession, path: str) -> Any:
    async with mailbox.get(path) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_a_mail_is_listed_and_can_be_read_in_parts_and_as_it_was_sent(
    smtp: aiosmtplib.SMTP, mailbox: ClientSession
) -> None:
    before = datetime.now(UTC)
    _, reply = await smtp.send_message(mail(), recipients=["jan@example.com"])
    after = datetime.now(UTC)
    [summary] = (await get(mailbox, "/api/v1/messages"))["messages"]
    message = await get(mailbox, f"/api/v1/message/{summary['ID']}")
    async with mailbox.get(f"/api/v1/message/{summary['ID']}/raw") as answer:
        raw = await answer.read()

    assert before <= datetime.fromisoformat(summary["Created"]) <= after  # of its final 250
    assert summary["ID"] in reply
    assert summary["MessageID"] == "1.email@example.com"
    assert summary["From"] == {"Name": "Ostoja", "Address": "biuro@example.com"}
    assert summary["To"] == [{"Name": "Jan", "Address": "jan@example.com"}]
    assert summary["Snippet"] == "Zażółć gęślą jaźń .kropka na początku"
    assert message["Text"].splitlines() == ["Zażółć gęślą jaźń", ".kropka na początku"]
    assert message["HTML"].strip() == "<p>Zażółć</p>"
    assert message["ReturnPath"] == "biuro@example.com"
    assert message["ListUnsubscribe"]["HeaderPost"] == "List-Unsubscribe=One-Click"
    assert raw.startswith(b"From: Ostoja <biuro@example.com>\r\n")
    assert (await get(mailbox, "/api/v1/messages"))["messages"][0]["Read"] is True


async def test_a_mail_whose_client_leaves_after_the_dot_is_received(
    smtp: aiosmtplib.SMTP, sandbox: Sandbox
) -> None:
    await sandbox.behave("email", delay_seconds=60)

    with pytest.raises(aiosmtplib.SMTPReadTimeoutError):
        await smtp.send_message(mail(), timeout=1)
    smtp.close()

    await eventually(sandbox.mails)


async def test_a_mail_cut_before_its_dot_was_never_there(sandbox: Sandbox) -> None:
    reader, writer = await asyncio.open_connection(sandbox.smtp_host, sandbox.smtp_port)
    for line in (b"", b"HELO x", b"MAIL FROM:<a@b.pl>", b"RCPT TO:<c@d.pl>", b"DATA"):
        if line:
            writer.write(line + b"\r\n")
        await reader.readline()
    writer.write(b"Subject: half\r\n\r\nbody\r\n")
    writer.write_eof()
    assert await reader.read() == b""  # the server has seen the end
    writer.close()

    assert await sandbox.received("email", refused_too=True) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"no header at all",
        b'From: "unfinished <a@b\r\nTo: ,;:<>@\r\nSubject: =?x?q?y?=\r\n\r\nbody',
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno part",
        b"Content-Type: text/plain; charset=nonsense\r\n\r\nbody",
        b"Date: yesterday\r\nSubject: \xff\xfe\r\n\r\n\xff",
        b"\r\n".join(
            b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d" % (n, n) for n in range(500)
        ),
    ],
)
async def test_a_broken_mail_does_not_hide_others(
    smtp: aiosmtplib.SMTP, mailbox: ClientSession, sandbox: Sandbox, raw: bytes
) -> None:
    await smtp.send_message(mail("whole"))
    await smtp.sendmail("a@b.pl", ["c@d.pl"], raw)

    mails = await sandbox.mails()
    assert [item["ReturnPath"] for item in mails] == ["biuro@example.com", "a@b.pl"]
    assert mails[0]["Subject"] == "whole"
    assert len(await sandbox.received("email")) == 2
    for path in ("/", f"/view/{mails[1]['ID']}", f"/view/{mails[1]['ID']}.html"):
        async with mailbox.get(path) as answer:
            assert answer.status == 200


async def test_the_page_shows_a_mail_without_trusting_it(
    smtp: aiosmtplib.SMTP, mailbox: ClientSession
) -> None:
    message = mail("<script>alert(1)</script>")
    message.get_body(("html",)).set_content("<script>alert(2)</script>", subtype="html")  # type: ignore[union-attr]
    await smtp.send_message(message)
    [summary] = (await get(mailbox, "/api/v1/messages"))["messages"]

    for path in ("/", f"/view/{summary['ID']}"):
        async with mailbox.get(path) as answer:
            page = await answer.text()
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "&lt;script&gt;alert(1)" in page
        assert "<script" not in page
        assert not re.search(r"(src|href)=\"?(https?:|//)", page)
    async with mailbox.get(f"/view/{summary['ID']}.html") as answer:
        policy = answer.headers["Content-Security-Policy"]

    assert "allow-scripts" not in policy
    assert policy.startswith("sandbox ")
    assert "default-src 'none'" in policy
    assert f' src="/view/{summary["ID"]}.html"' in page
    assert '<iframe sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
