"""Mail to a server that misbehaves at each step: which outcomes are certain."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from aiosmtplib.protocol import SMTPProtocol
from pydantic import SecretStr

from libs.common import beside
from services.alerts.channels.email import Email
from services.alerts.channels.network import Network
from services.alerts.channels.templates import Templates
from services.alerts.rules.delivery import Kind, Outcome, Reason
from tests.support import loops
from tests.support.certificates import Authority
from tests.support.ports import HOST
from tests.support.targets import LOOPBACK, TEMPLATES, job, listening, mail_target, send

pytestmark = pytest.mark.promise("P3")
TABLE = beside.toml(__file__)

TIMEOUT = 5.0  # for tests that do not reach it
SHORT = 0.6  # for tests that reach it
AFTER_THE_DOT = 1.5  # for tests that reach it after the terminator
Step = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    raise ConnectionResetError


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError


def says(text: str) -> Step:
    async def step(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{text}\r\n".encode())
        await writer.drain()

    return step


def drips(text: str, seconds: float) -> Step:
    async def step(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in f"{text}\r\n".encode():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(seconds)

    return step


async def says_without_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"250-and so on\r\n" * 1000)
        await writer.drain()


SLOW = 0.2


class Server:
    """An ordinary mail server, except for the steps that a test gives."""

    def __init__(self, **steps: Step) -> None:
        self.tls: ssl.SSLContext | None = None
        self._steps = {
            "connect": says("220 mail.example ESMTP"),
            "ehlo": says("250-mail.example\r\n250-AUTH PLAIN\r\n250 STARTTLS"),
            "starttls": says("220 go ahead"),
            "auth": says("235 welcome"),
            "mail": says("250 ok"),
            "rcpt": says("250 ok"),
            "data": says("354 go ahead"),
            "dot": says("250 queued"),
            "quit": says("221 bye"),
            **steps,
        }
        self.seen: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._steps["connect"](reader, writer)
        while line := await reader.readline():
            verb = line.split()[0].decode().lower()
            self.seen.append(verb)
            await self._steps[verb](reader, writer)
            if verb == "starttls":
                assert self.tls is not None
                await writer.start_tls(self.tls)
            if verb == "data":
                if body := self._steps.get("body"):
                    await body(reader, writer)
                await reader.readuntil(b"\r\n.\r\n")
                self.seen.append("dot")
                await self._steps["dot"](reader, writer)


def said(outcome: Outcome) -> tuple[Kind, Reason]:
    return outcome.kind, outcome.reason


async def mail(server: Server, **options: Any) -> Outcome:
    options = {"timeout": TIMEOUT} | options
    start = monotonic()
    at_once = server.tls if options.get("tls") == "tls" else None
    async with listening(server.handle, at_once) as port:
        outcome = await send(mail_target(port, **options))
    assert monotonic() - start < options["timeout"] + 2
    return outcome


STEPS = ("connect", "ehlo", "mail", "rcpt", "data")


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        (hang, Reason.TIMEOUT),
        (drips("250 so slow", SLOW), Reason.TIMEOUT),
        (close, Reason.CONNECTION),
        (reset, Reason.CONNECTION),
    ],
    ids=["hang", "drip", "close", "reset"],
)
@pytest.mark.parametrize("step", STEPS)
async def test_a_server_that_ends_before_the_terminator_has_no_mail(
    step: str, ends: Step, reason: Reason
) -> None:
    timeout = SHORT if reason is Reason.TIMEOUT else TIMEOUT
    assert said(await mail(Server(**{step: ends}), timeout=timeout)) == (Kind.FAILED, reason)


async def test_a_server_with_the_terminator_in_its_buffer_may_have_the_mail() -> None:
    outcome = await mail(Server(body=hang), timeout=AFTER_THE_DOT)
    assert said(outcome) == (Kind.UNKNOWN, Reason.TIMEOUT)


@pytest.mark.parametrize("step", [*STEPS[1:], "dot"])
async def test_421_at_any_step_is_retried(step: str) -> None:
    outcome = await mail(Server(**{step: says("421 4.3.2 closing")}))
    assert (outcome.kind, outcome.reason, outcome.status) == (Kind.FAILED, Reason.SERVER_ERROR, 421)


@pytest.mark.parametrize("greeting", ["554 no", "421 too busy"])
async def test_a_greeting_that_refuses_service_is_retried(greeting: str) -> None:
    outcome = await mail(Server(connect=says(greeting)))
    assert said(outcome) == (Kind.FAILED, Reason.SERVER_ERROR)


@pytest.mark.parametrize("step", [*STEPS, "dot"])
async def test_an_endless_reply_is_read_up_to_a_bound(step: str) -> None:
    outcome = await mail(Server(**{step: says_without_end}))
    assert outcome.kind is (Kind.UNKNOWN if step == "dot" else Kind.FAILED)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (hang, Reason.TIMEOUT),
        (drips("250-and more", SLOW), Reason.TIMEOUT),
        (says("250-and more"), Reason.TIMEOUT),
        (close, Reason.CONNECTION),
        (reset, Reason.CONNECTION),
        (says("what?"), Reason.BAD_ANSWER),
        (says("354 go on"), Reason.BAD_ANSWER),
    ],
    ids=["hang", "drip", "half", "close", "reset", "nonsense", "354"],
)
async def test_only_a_reply_after_the_terminator_is_certain(step: Step, reason: Reason) -> None:
    server = Server(dot=step)
    timeout = AFTER_THE_DOT if reason is Reason.TIMEOUT else TIMEOUT
    assert said(await mail(server, timeout=timeout)) == (Kind.UNKNOWN, reason)
    assert server.seen[-1] == "dot"


REFUSALS = [
    ("451 later", Kind.FAILED, Reason.SERVER_ERROR),
    ("452 full", Kind.FAILED, Reason.SERVER_ERROR),
    ("550 no", Kind.NEVER, Reason.REFUSED),
    ("554 spam", Kind.NEVER, Reason.REFUSED),
]


@pytest.mark.parametrize(
    ("step", "reply", "kind", "reason"),
    [
        *((step, *refusal) for step in ("mail", "rcpt", "data", "dot") for refusal in REFUSALS),
        ("dot", "250 queued", Kind.DELIVERED, Reason.OK),
        ("dot", "250-queued\r\n250 really", Kind.DELIVERED, Reason.OK),
    ],
)
async def test_a_reply_code_means_the_same_at_every_step(
    step: str, reply: str, kind: Kind, reason: Reason
) -> None:
    outcome = await mail(Server(**{step: says(reply)}))
    assert said(outcome) == (kind, reason)


@pytest.mark.parametrize(
    ("steps", "kind", "status"),
    [
        ({"ehlo": "550 5.7.1 you", "helo": "550 5.7.1 are blocked"}, Kind.HELD, 550),
        ({"auth": "535 5.7.8 bad credentials"}, Kind.HELD, 535),
        ({"auth": "534 5.7.9 use an app password"}, Kind.HELD, 534),
        ({"auth": "454 4.7.0 not now"}, Kind.FAILED, 454),
        ({"mail": "530 5.7.0 authenticate first"}, Kind.HELD, 530),
        ({"mail": "550 5.7.60 not your sender"}, Kind.HELD, 550),
        ({"mail": "552 5.3.4 too big"}, Kind.NEVER, 552),
        ({"rcpt": "530 authenticate first"}, Kind.HELD, 530),
        ({"rcpt": "550 5.7.1 nobody of ours"}, Kind.NEVER, 550),
        ({"dot": "554 5.7.1 spam"}, Kind.NEVER, 554),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
async def test_a_server_refuses_us_at_login_and_a_mail_afterwards(
    authority: Authority, steps: dict[str, str], kind: Kind, status: int
) -> None:
    server = Server(**{step: says(reply) for step, reply in steps.items()})
    server.tls = authority.server("localhost")
    login = {"username": "u", "password": SecretStr("a password")}
    outcome = await mail(server, host="localhost", tls="tls", **login)
    assert (outcome.kind, outcome.status) == (kind, status)


async def test_a_server_that_stops_reading_never_gets_the_terminator() -> None:
    server = Server(body=hang)
    text = "x" * 70 + "\n"
    async with listening(server.handle) as port:
        target = mail_target(port, timeout=SHORT)
        network = Network("any", LOOPBACK, 1)
        email = Email("any", target, TEMPLATES, network)
        outcome = await email.send(job(text=text * 200_000))
        await network.close()
    assert said(outcome) == (Kind.FAILED, Reason.TIMEOUT)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\nBcc: x@example.com\r\n"])
async def test_a_line_end_in_a_header_value_adds_no_header(end: str) -> None:
    network = Network("any", LOOPBACK, 1)
    email = Email("any", mail_target(1), TEMPLATES, network)
    link = "<https://example.com/unsubscribe?token=x>"
    headers = {"List-Unsubscribe": link + end, "List-Unsubscribe-Post": "One-Click"}
    _, sent = email._compose(job(text="hello", headers=headers))
    read = message_from_bytes(sent, policy=policy.SMTP)
    assert read["List-Unsubscribe"].startswith(link)
    assert read["List-Unsubscribe-Post"] == "One-Click"
    assert "Bcc" not in read
    assert read.get_content().strip() == "hello"
    await network.close()


@pytest.mark.parametrize(("template", "payload"), TABLE["unwritable"])
async def test_a_mail_that_cannot_be_written_was_not_sent(
    template: str, payload: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mail.j2").write_text(template)
    templates = Templates(tmp_path)
    templates.add("any", job().event_type, "mail.j2")
    network = Network("any", LOOPBACK, 1)
    email = Email("any", mail_target(1), templates, network)
    outcome = await email.send(job(**payload), dot_before=0)
    assert said(outcome) == (Kind.NEVER, Reason.BAD_PAYLOAD)
    await network.close()


# TLS


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Return a certificate authority that this process trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


async def over_tls(kind: str, context: ssl.SSLContext) -> tuple[Outcome, list[str]]:
    server = Server()
    server.tls = context
    password = SecretStr("a password")
    options = {"host": "localhost", "tls": kind, "username": "u", "password": password}
    outcome = await mail(server, **options)
    return outcome, server.seen


@pytest.mark.parametrize("kind", ["tls", "starttls"])
@pytest.mark.parametrize(
    ("host", "signed", "reason"),
    [
        ("localhost", True, Reason.OK),
        ("localhost", False, Reason.CONNECTION),
        ("other.example", True, Reason.CONNECTION),
    ],
)
async def test_only_a_server_with_a_valid_certificate_gets_mail_and_password(
    authority: Authority, kind: str, host: str, reason: Reason, *, signed: bool
) -> None:
    outcome, seen = await over_tls(kind, authority.server(host, signed=signed))
    assert outcome.reason is reason
    assert ("auth" in seen, "mail" in seen) == (reason is Reason.OK,) * 2


async def test_a_server_without_starttls_gets_neither_mail_nor_password() -> None:
    server = Server(ehlo=says("250-mail.example\r\n250 AUTH PLAIN"))
    options = {"username": "u", "password": SecretStr("a password")}
    outcome = await mail(server, tls="starttls", **options)
    assert outcome.kind is Kind.FAILED
    assert not {"auth", "mail"} & set(server.seen)


class BlockingServer:
    """Serves one connection from a thread while the client's event loop is blocked."""

    def __init__(self) -> None:
        self.dot = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]

    def serve(self) -> None:
        client, _ = self._listener.accept()
        # In the end the client may reset the connection.
        with suppress(ConnectionError), self._listener, client, client.makefile("rwb", 0) as file:
            file.write(b"220 mail.example ESMTP\r\n")
            for line in file:
                if line == b"DATA\r\n":
                    file.write(b"354 go ahead\r\n")
                    for text in file:
                        if text == b".\r\n":
                            break
                    self.dot.set()
                file.write(b"250 ok\r\n")


@contextmanager
def serving() -> Iterator[BlockingServer]:
    server = BlockingServer()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    thread.join(5)


@pytest.mark.parametrize("loop", loops.BOTH)
def test_the_terminator_has_left_the_process_when_its_step_ends(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, arrived = SMTPProtocol.write, list[bool]()
    with serving() as server:

        def write_and_stand_still(self: SMTPProtocol, data: bytes) -> None:
            write(self, data)
            if data == b".\r\n":
                arrived.append(server.dot.wait(2))

        monkeypatch.setattr(SMTPProtocol, "write", write_and_stand_still)

        async def one() -> Outcome:
            return await send(mail_target(server.port, timeout=5))

        with asyncio.Runner(loop_factory=loops.BOTH[loop]) as runner:
            assert runner.run(one()).kind is Kind.DELIVERED
    assert arrived == [True]
