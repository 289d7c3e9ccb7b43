"""The SMTP server: accepts mail for any address; may misbehave at MAIL, RCPT, DATA or the dot."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from deploy.sandbox.behaviour import hang_up
from deploy.sandbox.mail import Mail, plain
from deploy.sandbox.recorder import MIB, Recorder

TARGET = "email"
MAX_MAIL = 10 * MIB
Command = Callable[[str], Awaitable[None]]


class Smtp(SMTP):
    """One connection."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(
            _Handler(recorder),
            hostname="sandbox",  # avoids a DNS look-up per connection
            ident="Ostoja sandbox",
            data_size_limit=MAX_MAIL,
            enable_SMTPUTF8=True,
            loop=asyncio.get_running_loop(),
        )

    # Here, because the handler's hooks run only when a command is well-formed, and after the dot.
    async def smtp_MAIL(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        await self._unless_refused("mail", super().smtp_MAIL, arg)

    async def smtp_RCPT(self, arg: str) -> None:  # noqa: N802
        await self._unless_refused("rcpt", super().smtp_RCPT, arg)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        await self._unless_refused("data", super().smtp_DATA, arg)

    async def _unless_refused(self, stage: str, command: Command, arg: str) -> None:
        refusal = None
        if self.envelope is not None:
            refusal = await self.event_handler.misbehave(self, self.envelope, stage)
        await (command(arg) if refusal is None else self.push(refusal))


class _Handler:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def handle_DATA(  # noqa: N802
        self, server: Smtp, _: Session, envelope: Envelope
    ) -> str:
        if (refusal := await self.misbehave(server, envelope, "dot")) is not None:
            return refusal
        # aiosmtpd writes the reply without another await: `Created` is the moment of the 250.
        mail = _mail(envelope)
        self._recorder.record(TARGET, mail, accepted=True, answered=250)
        return f"250 2.0.0 OK: queued as {mail.id}"

    async def misbehave(self, server: Smtp, envelope: Envelope, stage: str) -> str | None:
        """Apply the behaviour configured for this stage; return a refusal, or None to continue."""
        if self._recorder.stage(TARGET) != stage:
            return None
        behaviour = self._recorder.take(TARGET)
        taken = stage == "dot" and (behaviour.accepted or not behaviour.fails)
        if behaviour.delay_seconds:
            try:
                await asyncio.sleep(behaviour.delay_seconds)
            except asyncio.CancelledError:
                # The client disconnected after its dot; a real server would still have the mail.
                self._recorder.record(TARGET, _mail(envelope), accepted=taken, answered=None)
                raise
        if behaviour.loses_answer:
            self._recorder.record(TARGET, _mail(envelope), accepted=taken, answered=None)
            if not behaviour.hang:
                hang_up(cast("asyncio.Transport", server.transport), reset=behaviour.reset)
            await asyncio.Event().wait()  # the lost connection cancels this
        if (status := behaviour.failing_status) is None:
            return None
        self._recorder.record(TARGET, _mail(envelope), accepted=False, answered=status)
        return f"{status} {status // 100}.3.0 told to answer {status}"


def _mail(envelope: Envelope) -> Mail:
    content: Any = envelope.original_content or b""
    recipients = tuple(plain(address) for address in envelope.rcpt_tos)
    return Mail(plain(envelope.mail_from or ""), recipients, content)
