"""A channel without the service around it, and servers that answer it byte by byte."""

import asyncio
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from services.alerts.channels import opened
from services.alerts.channels.apprise import AppriseTarget
from services.alerts.channels.channel import Target
from services.alerts.channels.email import EmailTarget
from services.alerts.channels.monday import MondayTarget
from services.alerts.channels.network import Networks
from services.alerts.channels.slack import SlackTarget
from services.alerts.channels.sms import SmsTarget
from services.alerts.channels.subscription import SubscriptionTarget
from services.alerts.channels.templates import Templates
from services.alerts.channels.webhook import WebhookTarget
from services.alerts.rules.delivery import Claimed, Kind, Outcome, Reason
from tests.support.ports import HOST

LOOPBACK: Networks = (ip_network("127.0.0.0/8"),)
TEMPLATES = Templates(Path("nowhere"))
SIGNING_KEY = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="

# What a status line means, whoever the provider is.
_MEANT = {
    (Kind.DELIVERED, Reason.OK): (200, 201, 202, 226),
    (Kind.FAILED, Reason.REDIRECT): (300, 301, 302, 303, 307, 308),
    (Kind.NEVER, Reason.REFUSED): (400, 402, 405, 407, 413, 415, 422, 451),
    (Kind.HELD, Reason.UNAUTHORIZED): (401, 403),
    (Kind.HELD, Reason.GONE): (404, 410),
    (Kind.FAILED, Reason.TIMEOUT): (408,),
    (Kind.FAILED, Reason.REFUSED): (409, 423, 425),
    (Kind.LATER, Reason.RATE_LIMITED): (429,),
    (Kind.FAILED, Reason.SERVER_ERROR): (500, 501, 502, 503, 504, 521, 599),
    (Kind.FAILED, Reason.BAD_ANSWER): (999,),
}
STATUSES = [(status, *meant) for meant, statuses in _MEANT.items() for status in statuses]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def http_target(channel: str, url: str, **options: Any) -> Target:
    if channel == "subscription":
        return SubscriptionTarget.of(url, [SIGNING_KEY]).model_copy(update=options)
    secret = SecretStr(url)
    app = {"api": url.rstrip("/"), "token": SecretStr("xoxb-token"), "post_to": "C0123"}
    kinds: dict[str, tuple[type[Target], dict[str, Any]]] = {
        "slack": (SlackTarget, {"url": secret}),
        "slack_app": (SlackTarget, app),
        "monday": (MondayTarget, {"url": url, "token": SecretStr("monday-token"), "board": "1"}),
        "sms": (SmsTarget, {"url": url, "token": SecretStr("sms-token"), "to": "+48600700800"}),
        "webhook": (WebhookTarget, {"url": secret, "secret": SecretStr(SIGNING_KEY)}),
        "apprise": (AppriseTarget, {"url": secret}),
    }
    kind, given = kinds[channel]
    return kind.model_construct(channel=channel.removesuffix("_app"), **given, **options)


def mail_target(port: int, host: str = HOST, **options: Any) -> EmailTarget:
    options = {"tls": "none", "sender": "ostoja@example.com", "to": "staff@example.com"} | options
    return EmailTarget.model_construct(channel="email", host=host, port=port, **options)


def job(event_type: str = "disk_full", severity: str = "info", **payload: Any) -> Claimed:
    return Claimed(
        alert_id=uuid.uuid4(),
        target="any",
        generation=0,
        attempt=1,
        attempts=1,
        age=0.0,
        event_type=event_type,
        severity=severity,
        payload=payload or {"text": "the disk is full"},
        accepted_at=datetime.now(UTC),
        request_id=None,
        due_at=datetime.now(UTC),
    )


async def send(target: Target, private: Networks = LOOPBACK) -> Outcome:
    """Make one attempt."""
    async with opened("any", target, TEMPLATES, private) as channel:
        return await channel.send(job())


@asynccontextmanager
async def listening(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve each connection by `handle`; the port. What it is at when the test ends is cut."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await handle(reader, writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass  # the client left, or the test is over
        finally:
            serving.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()


async def request(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP request whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    return head + await reader.readexactly(length)


def answering(answer: bytes) -> Handler:
    """Answer each request with these bytes, then close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(answer)
        await writer.drain()

    return handle


def answer(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
