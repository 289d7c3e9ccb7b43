"""A target's secret is shown nowhere, however the target fails or repeats it."""

import asyncio
import io
import json
import logging
import re
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from services.alerts.channels.channel import Target
from services.alerts.rules.delivery import Kind
from tests.integration.alerts.conftest import Alerts, StartAlerts
from tests.support.certificates import Authority
from tests.support.ports import HOST
from tests.support.targets import answer, http_target, listening, mail_target, request, send

MARKER = f"m4rker{secrets.token_hex(8)}"
TOKEN = f"a/{MARKER}+&<>'="
PATH = f"/T0123456789/{MARKER}/hook?key={MARKER}%2Fkey"
KEY = b64encode(MARKER.encode() * 2).decode()
SECRETS = (TOKEN, PATH, f"whsec_{KEY}", f"http://{HOST}{PATH}")

HTTP = ("slack", "monday", "sms", "webhook", "apprise")
FAILURES = (
    *("name", "unreachable", "no tls", "certificate", "address", "url", "500", "echo in 200"),
    *("redirect", "garbage", "long line", "close", "hang"),
)


def shown(text: str) -> list[str]:
    """Return where the marker is found, plain or in base64."""
    forms = [MARKER[:12], MARKER.encode().hex(), KEY[:20]]
    for before in range(3):
        coded = b64encode(bytes(before) + MARKER.encode()).decode()
        forms.append(coded[4:-4])
    return [text[max(at - 80, 0) : at + 60] for form in forms if (at := text.find(form)) >= 0]


def echo(received: bytes, *secrets: str) -> bytes:
    """Repeat the request and each secret; test_redact.py has every spelling."""
    spellings = [received.decode("latin-1")]
    for secret in secrets:
        coded = [b64encode(each + secret.encode()).decode() for each in (b"user:", b"\0user\0")]
        spellings += [secret, quote(secret, safe=""), json.dumps(secret), *coded]
    return "\n".join(spellings).encode()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Collect what a process that logs everything would print (caplog shows more than that)."""
    printed = io.StringIO()
    handler, root = logging.StreamHandler(printed), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield printed
    root.setLevel(level)
    root.removeHandler(handler)


@dataclass
class Front:
    """A server that fails as the test says."""

    port: int = 0
    tls_port: int = 0
    failure: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await request(reader)
        match self.failure:
            case "500":
                writer.write(answer(500, echo(received, *SECRETS)))
            case "echo in 200":
                writer.write(answer(200, echo(received, *SECRETS)))
            case "redirect":
                writer.write(
                    answer(307, echo(received, *SECRETS), f"Location: http://{HOST}{PATH}")
                )
            case "garbage":
                writer.write(f"HTTP/1.1 {PATH} {TOKEN}\r\n{PATH}\r\n\r\n".encode())
            case "long line":
                writer.write(b"HTTP/1.1 200 OK\r\nX-Long: " + PATH.encode() * 1000)
            case "hang":
                await asyncio.Event().wait()
        await writer.drain()


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    serving = Front()
    unsigned = Authority(tmp_path).server("localhost", signed=False)
    async with listening(serving.handle) as port, listening(serving.handle, unsigned) as tls_port:
        serving.port, serving.tls_port = port, tls_port
        yield serving


def failing(channel: str, front: Front, failure: str) -> Target:
    front.failure = failure
    scheme = "json" if channel == "apprise" else "http"
    secure = f"{scheme}s"
    slots = {
        "name": f"{scheme}://no-such-name.invalid{PATH}",
        "unreachable": f"{scheme}://{HOST}:9{PATH}",
        "no tls": f"{secure}://{HOST}:{front.port}{PATH}",
        "certificate": f"{secure}://localhost:{front.tls_port}{PATH}",
        "address": f"{scheme}://10.11.12.13{PATH}",
        "url": f"{scheme}://user:{MARKER}@{HOST}:{front.port}:x{PATH}",
    }
    url = slots.get(failure, f"{scheme}://{HOST}:{front.port}{PATH}")
    target = http_target(channel, url, timeout=1.0)
    return target.model_copy(
        update={
            name: SecretStr(value)
            for name, value in (("token", TOKEN), ("secret", f"whsec_{KEY}"))
            if hasattr(target, name)
        }
    )


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("channel", HTTP)
async def test_no_failure_shows_a_secret_in_the_ledger_or_a_log(
    front: Front, channel: str, failure: str, log: io.StringIO
) -> None:
    target = failing(channel, front, failure)
    if failure == "url":  # the service does not start: test_config.py
        with pytest.raises((SystemExit, ValueError)) as stopped:
            await send(target)
        text = str(stopped.value)
    else:
        outcome = await send(target)
        accepts = failure == "echo in 200" and channel in {"webhook", "apprise"}
        assert outcome.kind is (Kind.DELIVERED if accepts else Kind.FAILED)
        text = repr(outcome)
    assert shown(text) == []
    assert shown(log.getvalue()) == []


class MailServer:
    """Refuses the password or the sender, and repeats what it got."""

    def __init__(self, refused: str) -> None:
        self.refused = refused
        self.seen = b""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        while line := await reader.readline():
            self.seen += line
            verb = line.split()[0].upper().decode()
            refusal = re.sub(rb"[\r\n]+", b" ", echo(self.seen, TOKEN))
            if verb == self.refused:
                writer.write(b"535 5.7.8 " + refusal[:4000] + b"\r\n")
            elif verb == "EHLO":
                writer.write(b"250-mail.example\r\n250 AUTH PLAIN LOGIN\r\n")
            else:
                writer.write(b"235 ok\r\n" if verb == "AUTH" else b"250 ok\r\n")


@pytest.mark.parametrize("refused", ["AUTH", "MAIL", "EHLO"])
async def test_a_mail_servers_refusal_shows_no_password(refused: str, log: io.StringIO) -> None:
    server = MailServer(refused)
    async with listening(server.handle) as port:
        outcome = await send(mail_target(port, username="user", password=SecretStr(TOKEN)))
    assert outcome.kind is not Kind.DELIVERED
    if refused != "EHLO":
        assert b"AUTH" in server.seen
    assert shown(repr(outcome)) == []
    assert shown(log.getvalue()) == []


async def dump(subject: Alerts) -> str:
    """Return every row of every table as text."""
    async with subject.engine.connect() as connection:
        names = (
            await connection.execute(
                sa.text(
                    "SELECT table_name FROM information_schema.tables"
                    " WHERE table_schema = current_schema()"
                )
            )
        ).scalars()
        rows: list[str] = []
        for name in names:
            rows += (await connection.execute(sa.text(f'SELECT t::text FROM "{name}" t'))).scalars()
    return "\n".join(rows)


async def test_no_secret_reaches_the_log_the_database_or_a_response(
    alerts: StartAlerts, front: Front
) -> None:
    front.failure = "500"
    mail = MailServer("AUTH")
    async with listening(mail.handle) as mail_port:
        base = f"http://{HOST}:{front.port}"
        subject = await alerts(
            LOG_LEVEL="DEBUG",
            SLACK_WEBHOOK_URL=f"{base}{PATH}",
            MONDAY_API_URL=f"{base}{PATH}",
            MONDAY_API_TOKEN=TOKEN,
            SMS_API_URL=f"http://no-such-name.invalid{PATH}",
            SMS_API_TOKEN=TOKEN,
            WEBHOOK_URL=f"https://localhost:{front.tls_port}{PATH}",
            WEBHOOK_SECRET=f"whsec_{KEY}",
            APPRISE_URL=f"json://user:{MARKER}@{HOST}:{front.port}{PATH}",
            SMTP_PORT=str(mail_port),
            SMTP_PASSWORD=TOKEN,
            any={"channel": "apprise", "url": {"env": "APPRISE_URL"}},
            email={"username": "user", "password": {"env": "SMTP_PASSWORD"}},
        )
        targets = ("slack", "monday", "sms", "webhook", "email", "any")
        ids = {target: await subject.accept(target=target) for target in targets}
        answers = []
        for target, alert_id in ids.items():
            # A login that is refused is the target's fault: the alert waits for it.
            await subject.until(alert_id, "pending" if target == "email" else "failed", target)
            answers.append(await subject.http("GET", f"/api/alerts/{alert_id}"))
        paths = ("/api/dlq/failed", "/api/breakers", "/health/deep", "/api/dlq/stats")
        answers += [await subject.http("GET", path) for path in paths]
    assert mail.seen
    answers.append((200, await subject.metrics()))
    assert [status for status, _ in answers] == [200] * len(answers)
    assert shown(json.dumps(answers)) == []
    assert shown(await dump(subject)) == []
    await subject.stop()
    assert "delivery" in subject.log.read_text()
    assert shown(subject.log.read_text()) == []
