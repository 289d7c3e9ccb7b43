"""Mail by SMTP, one recipient per message, with the terminator written separately.

SMTP libraries send the body and its terminator, the dot, in one call. Here the dot is a step of its
own, because a mail counts as sent once a byte of the dot may be out: a failure before it certainly
means "not sent", and after it only the server's response can tell (protocol B, step 5).
"""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Any, Literal, Self, cast

import aiosmtplib
from pydantic import Field, SecretStr, model_validator

from services.alerts.channels.channel import BaseChannel, Seconds, Secret, Target
from services.alerts.channels.network import Network, reason
from services.alerts.channels.redact import Redactor
from services.alerts.channels.templates import Templates, text_of
from services.alerts.rules.delivery import Claimed, Kind, Outcome, Reason

# The headers that a payload may set. With any other, a caller could add recipients, for example.
HEADERS = frozenset(
    {"message-id", "list-unsubscribe", "list-unsubscribe-post", "reply-to", "auto-submitted"}
)


class _Policy(EmailPolicy):
    """Does not fold our own headers: by default a long URL becomes encoded words."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        if name.lower() in HEADERS and str(value).isascii():
            return f"{name}: {value}\r\n".encode("ascii")
        return super().fold_binary(name, value)


_AUTHENTICATE_FIRST = 530
POLICY = _Policy(linesep="\r\n", cte_type="7bit", raise_on_defect=False)


def boottime() -> float:
    """Return seconds on a clock that continues while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class EmailTarget(Target):
    once = True
    needs = "email"
    identity = ("username", "password", "sender")

    channel: Literal["email"]
    host: str
    port: int = Field(ge=1, le=65535)
    username: str = ""
    password: Secret = SecretStr("")
    tls: Literal["none", "starttls", "tls"] = "starttls"
    sender: str
    to: str
    timeout: Seconds = 12
    ask_timeout: Seconds = 5  # for consent's reply to a permit request
    permit: Seconds = 20  # how long a permit is valid; consent decides it
    dot_deadline: Seconds = 10  # after asking; later than that, no terminator is written
    permit_patience: Seconds = 24 * 3600  # without a permit; then the mail is cancelled

    @property
    def lease(self) -> float:
        return self.ask_timeout + self.timeout + self.margin

    @model_validator(mode="after")
    def _a_send_fits_into_its_permit(self) -> Self:
        if self.timeout + self.margin >= self.permit:
            raise ValueError(
                f"timeout + margin ({self.timeout + self.margin:g} s) must be below "
                f"permit ({self.permit:g} s)"
            )
        if self.dot_deadline >= self.permit:
            raise ValueError("dot_deadline must be below permit")
        return self


class Email(BaseChannel[EmailTarget], section=EmailTarget):
    def __init__(
        self, name: str, target: EmailTarget, templates: Templates, network: Network
    ) -> None:
        super().__init__(name, target, templates, network)
        self._redact = Redactor(target.secrets())
        self._hostname = socket.gethostname()
        self._tls = ssl.create_default_context()

    async def send(self, job: Claimed, *, dot_before: float | None = None) -> Outcome:
        """Send one mail.

        :param dot_before: no terminator is written at or after this `boottime`
        :returns: with `Kind.UNKNOWN` when a byte of the dot may be out and no response came
        """
        try:
            recipient, message = self._compose(job)
            returns_to = job.payload.get("return_path")  # bounces name their mail by it
            sender = _plain(returns_to) if returns_to else self._target.sender
        except Exception as error:  # noqa: BLE001 - a template raises anything; nothing was sent
            return Outcome(Kind.NEVER, Reason.BAD_PAYLOAD, excerpt=self._redact(_said(error)))
        attempt = _Attempt(self._target, self._hostname, self._tls, dot_before)
        try:
            async with asyncio.timeout(self._target.timeout):
                outcome = await attempt.run(self._network, sender, recipient, message)
        except Exception as error:  # noqa: BLE001 - whatever it was, the dot decides
            outcome = replace(_classify(error), excerpt=_said(error))
            if attempt.dot_may_be_out:
                outcome = replace(outcome, kind=Kind.UNKNOWN)
        return replace(outcome, excerpt=self._redact(outcome.excerpt))

    def _compose(self, job: Claimed) -> tuple[str, bytes]:
        payload = job.payload
        subject = payload.get("subject") or f"[{job.severity}] {job.event_type}"
        text = payload.get("text")
        rendered = self._templates.render(self._name, job)
        if rendered is not None:  # the first line is the subject
            subject, _, text = rendered.partition("\n")
        message = EmailMessage(policy=POLICY)
        message["From"] = self._target.sender
        recipient = str(payload.get("to") or self._target.to)
        message["To"] = _plain(recipient)
        message["Subject"] = " ".join(str(subject).split())
        message["Date"] = job.accepted_at
        headers = {
            "Message-ID": f"<{job.alert_id}.{job.target}@{self._target.sender.rpartition('@')[2]}>",
            "Auto-Submitted": "auto-generated",
            **{
                name: value
                for name, value in (payload.get("headers") or {}).items()
                if name.lower() in HEADERS
            },
        }
        for name, value in headers.items():
            message[name] = " ".join(str(value).split())  # a line end would end the header
        message.set_content(str(text or text_of(job)))
        if html := payload.get("html"):
            message.add_alternative(str(html), subtype="html")
        return recipient, message.as_bytes()


class _Attempt:
    """One mail over one connection."""

    def __init__(
        self, target: EmailTarget, hostname: str, tls: ssl.SSLContext, dot_before: float | None
    ) -> None:
        self._target = target
        self._dot_before = dot_before
        self.dot_may_be_out = False
        self._answered = False
        self._transport: asyncio.WriteTransport | None = None
        self._smtp = aiosmtplib.SMTP(
            hostname=target.host,  # for its certificate; the socket is ours
            username=target.username or None,
            password=target.password.get_secret_value() or None,
            use_tls=target.tls == "tls",
            start_tls=target.tls == "starttls",
            tls_context=tls,
            local_hostname=hostname,
            timeout=target.timeout,
        )

    async def run(self, network: Network, sender: str, recipient: str, message: bytes) -> Outcome:
        sock = await network.connect(self._target.host, self._target.port)
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._target.timeout * 1000)
        )
        with self._reset_unless_answered():
            await self._smtp.connect(sock=sock)
            # uvloop's transports are not subclasses of asyncio's.
            transport = cast("asyncio.WriteTransport | None", self._smtp.transport)
            protocol = self._smtp.protocol
            if transport is None or protocol is None:
                raise aiosmtplib.SMTPServerDisconnected("Connection lost")
            self._transport = transport
            await self._smtp.mail(sender)
            await self._smtp.rcpt(recipient)
            start = await self._smtp.execute_command(b"DATA")
            if start.code != aiosmtplib.SMTPStatus.start_input:
                raise aiosmtplib.SMTPDataError(start.code, start.message)
            protocol.write(_stuffed(message))
            # The dot must not queue behind the body. The library's protocol has no event for that.
            while transport.get_write_buffer_size():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            # Nothing is awaited from here to the write: no pause fits between check and dot.
            if self._dot_before is not None and boottime() >= self._dot_before:
                return Outcome(Kind.FAILED, Reason.TOO_LATE)
            protocol.write(b".\r\n")
            self.dot_may_be_out = True
            code, text = await protocol.read_response(self._target.timeout)
            if code // 100 not in {2, 4, 5}:  # neither accepted nor refused
                raise aiosmtplib.SMTPResponseException(code, text)
            self.dot_may_be_out = False  # the server has said which
            self._answered = True
        return _by_code(code, text)

    @contextmanager
    def _reset_unless_answered(self) -> Iterator[None]:
        """Reset the connection, so that nothing buffered, here or in the kernel, is sent later.

        Covers every exit: too late, time-out, cancellation, refusal. Only the server's response to
        the dot ends the transaction; then nothing is left to take back.
        """
        try:
            yield
        finally:
            transport = self._transport
            if transport is not None and not transport.is_closing():
                if self._answered:
                    transport.write(b"QUIT\r\n")  # its response is not awaited
                else:
                    transport.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    transport.abort()
            self._smtp.close()


def _plain(address: Any) -> str:
    """:raises ValueError: it is not one plain address"""
    return Address(addr_spec=str(address)).addr_spec


def _stuffed(message: bytes) -> bytes:
    """CRLF lines, leading dots doubled (RFC 5321, 4.5.2), ending with CRLF, without the dot."""
    lines = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n").split(b"\n")
    return b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines)


def _by_code(code: int, text: str) -> Outcome:
    match code // 100:
        case 2:
            return Outcome(Kind.DELIVERED, Reason.OK, code, text)
        case 4:
            return Outcome(Kind.FAILED, Reason.SERVER_ERROR, code, text)
        case 5:
            return Outcome(Kind.NEVER, Reason.REFUSED, code, text)
    return Outcome(Kind.FAILED, Reason.BAD_ANSWER, code, text)


def _classify(error: Exception) -> Outcome:
    match error:
        case aiosmtplib.SMTPConnectResponseError():  # its greeting refuses service
            return Outcome(Kind.FAILED, Reason.SERVER_ERROR, error.code)
        case aiosmtplib.SMTPResponseException() if _refuses_us(error):
            return Outcome(Kind.HELD, Reason.UNAUTHORIZED, error.code)
        case aiosmtplib.SMTPResponseException():
            return _by_code(error.code, "")
        case TimeoutError():
            return Outcome(Kind.FAILED, Reason.TIMEOUT)
        case UnicodeError() | aiosmtplib.SMTPNotSupported():
            return Outcome(Kind.NEVER, Reason.BAD_PAYLOAD)
    return Outcome(Kind.FAILED, reason(error))


def _refuses_us(error: aiosmtplib.SMTPResponseException) -> bool:
    """Return whether it would refuse all our mail: our login, or our sender (RFC 4954)."""
    match error:
        case aiosmtplib.SMTPAuthenticationError() | aiosmtplib.SMTPHeloError():
            return error.code // 100 == 5
        case aiosmtplib.SMTPSenderRefused():
            return error.message.startswith("5.7.") or error.code == _AUTHENTICATE_FIRST
    return error.code == _AUTHENTICATE_FIRST


def _said(error: Exception) -> str:
    # str() shows the response as a Python literal, in which redaction may miss an escaped secret.
    said = error.message if isinstance(error, aiosmtplib.SMTPResponseException) else error
    return f"{type(error).__name__}: {said}"
