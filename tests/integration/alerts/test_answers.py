"""Responses of a target: a status, a body, too much of it, too slow, or nothing."""

import asyncio
import gzip
import json
import resource
from time import monotonic

import pytest

from services.alerts.channels import opened
from services.alerts.rules.delivery import Kind, Reason
from tests.support.targets import (
    LOOPBACK,
    STATUSES,
    TEMPLATES,
    answer,
    answering,
    http_target,
    job,
    listening,
    request,
    send,
)

HTTP = ("slack", "slack_app", "monday", "sms", "webhook")
SUCCESS = {
    "slack": b"ok",
    "slack_app": b'{"ok": true, "ts": "1764144000.000001", "channel": "C0123"}',
    "monday": json.dumps({"data": {"create_item": {"id": "1"}}}).encode(),
    "sms": json.dumps({"count": 1, "list": [{"status": "QUEUE"}]}).encode(),
    "webhook": b"",
}
ERRORS = {  # each a 200
    "slack": b"rollup_error",
    "slack_app": b'{"ok": false, "error": "internal_error"}',
    "monday": json.dumps({"errors": [{"message": "Internal server error"}]}).encode(),
    "sms": json.dumps({"error": 201, "message": "Wrong system settings"}).encode(),
}
QUICK = {"timeout": 0.5}
SOON = 8  # seconds, on a busy machine; without the time-out it would be more


@pytest.mark.parametrize("channel", HTTP)
@pytest.mark.parametrize(("status", "kind", "reason"), STATUSES)
async def test_a_status_means_the_same_for_every_provider(
    channel: str, status: int, kind: Kind, reason: Reason
) -> None:
    async with listening(answering(answer(status, SUCCESS[channel]))) as port:
        outcome = await send(http_target(channel, f"http://127.0.0.1:{port}/"))
    assert (outcome.kind, outcome.reason, outcome.status) == (kind, reason, status)


@pytest.mark.promise("P15")
@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (202, Kind.DELIVERED, Reason.OK),
        (302, Kind.FAILED, Reason.REDIRECT),
        (422, Kind.FAILED, Reason.REFUSED),
        (410, Kind.NEVER, Reason.GONE),
    ],
)
async def test_what_a_receiver_of_events_answers(status: int, kind: Kind, reason: Reason) -> None:
    async with listening(answering(answer(status, b""))) as port:
        outcome = await send(http_target("subscription", f"http://127.0.0.1:{port}/"))
    assert (outcome.kind, outcome.reason, outcome.status) == (kind, reason, status)


@pytest.mark.parametrize("channel", ERRORS)
@pytest.mark.parametrize("status", [200, 202, 204])
async def test_an_error_or_nothing_inside_a_2xx_is_a_failure(channel: str, status: int) -> None:
    body = b"" if status == 204 else ERRORS[channel]
    for said in {body, b""}:
        async with listening(answering(answer(status, said))) as port:
            outcome = await send(http_target(channel, f"http://127.0.0.1:{port}/"))
        assert (outcome.kind, outcome.reason) == (Kind.FAILED, Reason.BAD_ANSWER)
        assert outcome.excerpt or not said


@pytest.mark.parametrize("said", [b"no_service", b"invalid_token\n", b"no_team"])
@pytest.mark.parametrize("status", [200, 400, 404])
async def test_a_slack_webhook_that_is_gone_refuses_us_whatever_its_status(
    said: bytes, status: int
) -> None:
    async with listening(answering(answer(status, said))) as port:
        outcome = await send(http_target("slack", f"http://127.0.0.1:{port}/"))
    assert outcome.kind is Kind.HELD


@pytest.mark.parametrize("channel", HTTP)
async def test_a_2xx_whose_body_stays_open_is_read_as_far_as_it_came(channel: str) -> None:
    async def stays(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        body = SUCCESS[channel] or b"x"
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body))
        await asyncio.Event().wait()

    async with listening(stays) as port:
        outcome = await send(http_target(channel, f"http://127.0.0.1:{port}/", **QUICK))
    assert (outcome.kind, outcome.status) == (Kind.DELIVERED, 200)


@pytest.mark.parametrize("channel", HTTP)
@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
    ],
    ids=["nothing", "head", "body", "chunks", "chunk", "length", "smtp", "tls"],
)
async def test_a_truncated_or_malformed_response_is_a_failed_connection(
    channel: str, broken: bytes
) -> None:
    async with listening(answering(broken)) as port:
        outcome = await send(http_target(channel, f"http://127.0.0.1:{port}/"))
    assert (outcome.kind, outcome.reason) == (Kind.FAILED, Reason.CONNECTION)


@pytest.mark.parametrize("channel", HTTP)
@pytest.mark.parametrize("silent", [0, 20, len(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")])
async def test_a_dripping_response_ends_at_the_attempts_time_out(channel: str, silent: int) -> None:
    """:param silent: how many bytes come at once before the others drip"""
    text = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b"x" * 99

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(text[:silent])
        for byte in text[silent:]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.1)

    start = monotonic()
    async with listening(drip) as port:
        outcome = await send(http_target(channel, f"http://127.0.0.1:{port}/", **QUICK))
    whole_head = silent > 20
    if whole_head and channel == "webhook":  # it has accepted the alert
        assert outcome.kind is Kind.DELIVERED
    else:
        assert outcome.reason is (Reason.BAD_ANSWER if whole_head else Reason.TIMEOUT)
        assert outcome.kind is Kind.FAILED
    assert 0.4 < monotonic() - start < SOON


HEAD = b"HTTP/1.1 200 OK\r\n"
MANY = 100 * 1024 * 1024


class Endless:
    def __init__(self, head: bytes, again: bytes) -> None:
        self._head = head
        self._again = again
        self.sent = 0  # including what the kernel's buffers took

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(self._head)
        while self.sent < MANY:
            writer.write(self._again)
            await writer.drain()
            self.sent += len(self._again)


@pytest.mark.parametrize("channel", HTTP)
@pytest.mark.parametrize(
    ("head", "again"),
    [
        (HEAD + b"X: ", b"x" * 65536),
        (HEAD, b"X-Header: value\r\n" * 4096),
        (HEAD + b"Content-Length: 104857600\r\n\r\n", b"x" * 65536),
        (HEAD + b"\r\n", b"x" * 65536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
        (b"HTTP/1.1 200 ", b"x" * 65536),
    ],
    ids=["header", "headers", "length", "body", "chunks", "reason"],
)
async def test_an_endless_response_is_read_up_to_a_bound(
    channel: str, head: bytes, again: bytes
) -> None:
    endless = Endless(head, again)
    start = monotonic()
    async with listening(endless.handle) as port:
        outcome = await send(http_target(channel, f"http://127.0.0.1:{port}/", **QUICK))
    assert monotonic() - start < SOON
    assert len(outcome.excerpt) <= 500
    assert endless.sent < 20 * 1024 * 1024
    body_is_enough = channel == "webhook" and b"\r\n\r\n" in head
    assert outcome.kind is (Kind.DELIVERED if body_is_enough else Kind.FAILED)


@pytest.mark.parametrize(
    ("head", "again"),
    [
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"x" * 65536),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000),
    ],
    ids=["extension", "hints"],
)
async def test_ignored_response_data_is_bounded_in_time_and_memory(
    head: bytes, again: bytes
) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, monotonic()
    async with listening(Endless(head, again).handle) as port:
        outcome = await send(http_target("slack", f"http://127.0.0.1:{port}/", **QUICK))
    assert outcome.kind is Kind.FAILED
    assert monotonic() - start < SOON
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB


@pytest.mark.parametrize("channel", HTTP)
async def test_a_compressed_response_is_not_decompressed(channel: str) -> None:
    bomb = gzip.compress(bytes(50 * 1024 * 1024))
    async with listening(answering(answer(200, bomb, "Content-Encoding: gzip"))) as port:
        outcome = await send(http_target(channel, f"http://127.0.0.1:{port}/"))
    assert outcome.kind is (Kind.DELIVERED if channel == "webhook" else Kind.FAILED)
    assert outcome.reason in {Reason.OK, Reason.BAD_ANSWER}
    assert outcome.excerpt  # decompressed it would be NULs, which are not shown


async def test_apprise_gets_an_alert_with_its_title_and_severity() -> None:
    got = list[bytes]()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await request(reader))
        writer.write(answer(200, b""))

    async with listening(take) as port:
        target = http_target("apprise", f"json://127.0.0.1:{port}/")
        async with opened("any", target, TEMPLATES, LOOPBACK) as channel:
            sent = job(severity="critical", text="Zażółć gęślą jaźń", subject="Dysk")
            assert (await channel.send(sent)).kind is Kind.DELIVERED
    body = json.loads(got[0].partition(b"\r\n\r\n")[2])
    said = (body["message"], body["title"], body["type"])
    assert said == ("Zażółć gęślą jaźń", "Dysk", "failure")


async def test_a_dripping_response_holds_no_thread_of_apprise_after_the_time_out() -> None:
    asked = 0

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await request(reader)
        asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with listening(drip) as port:
        target = http_target("apprise", f"json://127.0.0.1:{port}/", timeout=0.5, concurrency=1)
        async with opened("any", target, TEMPLATES, LOOPBACK) as channel:
            for _ in range(3):
                assert (await channel.send(job())).reason is Reason.TIMEOUT
    assert asked == 3  # each got the only thread
