"""Acts on a mail that came back, in the transaction that stores it (decision 68, promise P13).

    mailbox, or HTTP       followups                                   outbox relay
    the mail         ->    mail, steps, lead, outbox: commit     ->    withdrawal.record,
    seen, moved      <-    then the answer                             address.report, lead.updated,
                                                                       visitor.mail

Killed before the commit, nothing has changed and the mail comes again. Killed after it, the mail is
known by its key, and only its place in the mailbox is still to change.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.messaging.broker import Message
from libs.common.process.logs import log
from libs.domain.email_address import MalformedEmail, normalise
from services.followups import chat, messages, metrics
from services.followups.config import Config
from services.followups.dialogue.state import State
from services.followups.inbox import worker
from services.followups.inbox.reader import WORDS, Read
from services.followups.leads import staff
from services.followups.mails import enrolment
from services.followups.mails.marks import Marks
from services.followups.store import leads, sql, steps
from services.followups.store.sql import run
from services.followups.store.tables import Row
from services.followups.topology import ALERTS, ALERTS_INTAKE

SOFT_BOUNCES = 3
"""Of an address in seven days count as a hard one."""
TOLD_AN_HOUR = 20
"""Mails that we did not cause of which staff are told one by one; of the rest once a day."""
SAID_LENGTH = 4000
BOUNCED = "bounced"

Outcome = Literal[
    "hard", "soft", "complaint", "unsubscribe", "auto", "reply", "unknown", "duplicate", "left"
]
_WITHDRAWAL = UUID("2d7c6c02-5f0e-4f5d-9d3e-39a1c0f1b768")


@dataclass(frozen=True, eq=False)
class Inbox:
    engine: AsyncEngine
    config: Config
    link: staff.Link
    marks: Marks

    async def take(self, raw: bytes, *, leaves: bool = False) -> Outcome:
        """Store a mail and act on it; a second copy changes nothing.

        :param leaves: what names no step of ours is `left`: it is for others, or of no use
        :raises Unreadable:
        """
        return await self.act(await worker.read(raw), leaves=leaves)

    async def act(self, mail: Read, *, leaves: bool = False) -> Outcome:
        async with self.engine.begin() as tx:
            outcome, stopped = await self._act(tx, mail, leaves=leaves)
        metrics.MAILS.labels(outcome).inc()
        metrics.ENDED.labels("cancelled").inc(stopped)
        log.info("mail.taken", outcome=outcome, stopped=stopped)
        return outcome

    async def _act(self, tx: AsyncConnection, mail: Read, *, leaves: bool) -> tuple[Outcome, int]:
        now = datetime.now(UTC)
        step = await self._step(tx, mail)
        if step is None and leaves:
            return "left", 0
        talk = None
        if step is not None:  # lock order: the conversation, contacts and lead, the address
            since = now - self.config.lead.reopens_after
            here = step["conversation_id"]
            talk = await sql.row(tx, "reenter", conversation=here, since=since)
        outcome = _outcome(mail, is_known=talk is not None)
        email = step["email"] if step is not None and talk is not None else _address(mail.sender)
        taken = await run(
            tx, "take", key=mail.key, kind=outcome, status=mail.status or None,
            step=step["id"] if step is not None else None,
            conversation=talk["id"] if talk is not None else None,
            email=None if outcome == "auto" and talk is None else email,
        )  # fmt: skip
        if not taken.rowcount:
            return "duplicate", 0
        if step is None or talk is None:
            return outcome, await self._unknown(tx, mail, email, now) if outcome != "auto" else 0
        match outcome:
            case "hard":
                stopped = await self._bounced(tx, step, mail.status or "bounced", now)
            case "soft":
                stopped = 0
                if (await run(tx, "soft", email=email)).scalar_one() >= SOFT_BOUNCES:
                    reason = f"{SOFT_BOUNCES} soft bounces in a week, {mail.status}".strip(" ,")
                    stopped = await self._bounced(tx, step, reason, now)
            case "complaint" | "unsubscribe":
                stopped = await self._withdraw(tx, mail, step, outcome, now)
            case "reply":
                stopped = await self._replied(tx, mail, step, talk, now)
            case _:
                stopped = 0
        return outcome, stopped

    async def _step(self, tx: AsyncConnection, mail: Read) -> Row | None:
        named = [*filter(None, map(self.marks.step, mail.tokens)), *map(UUID, mail.steps)]
        for each in dict.fromkeys(named):
            if (found := await sql.row(tx, "step", id=each)) is not None:
                return found
        return await sql.row(tx, "newest_to", email=mail.recipient) if mail.recipient else None

    async def _bounced(self, tx: AsyncConnection, step: Row, reason: str, now: datetime) -> int:
        """Send nothing more to this address; the caller has locked the conversation."""
        here, email = step["conversation_id"], step["email"]
        await run(tx, "end_followups", conversation=here, email=email, reason="bounce")
        await steps.lock_address(tx, email)
        await run(tx, "bury", email=email, conversation=here, reason=reason)
        await report_address(tx, email, takes_mail=False)
        stopped = await steps.stop(tx, BOUNCED, here, email=email)
        await outbox.add_all(tx, [steps.event("followup.bounced", step, reason=reason)])
        for lost in await run(tx, "out_of_reach", email=email):
            await self._tell(
                tx, f"{lost.id} unreachable {step['id']}", "unreachable", [reason], now,
                lead_id=lost.id, conversation_id=here, email=email,
                name=lost.name, language=lost.language,
            )  # fmt: skip
        return len(stopped)

    async def _withdraw(
        self, tx: AsyncConnection, mail: Read, step: Row, source: str, now: datetime
    ) -> int:
        """Withdraw the consent to all marketing; the permit enforces it."""
        body = messages.withdrawal_record(
            step["email"], now, source="complaint" if source == "complaint" else "mail"
        )
        command_id = uuid.uuid5(_WITHDRAWAL, mail.key)
        await outbox.add_all(tx, [enrolment.command(messages.WITHDRAWAL_RECORD, body, command_id)])
        reason = "complaint" if source == "complaint" else enrolment.UNSUBSCRIBED
        return len(await steps.stop(tx, reason, email=step["email"]))

    async def _replied(
        self, tx: AsyncConnection, mail: Read, step: Row, talk: Row, now: datetime
    ) -> int:
        """Add what they wrote to the lead's conversation, and end the sequence."""
        before = State.entered(talk)
        facts = before.facts
        if facts.email is None:  # enrolled by the API, for example
            facts = facts._replace(email=step["email"])
        said = mail.text or mail.subject or "(…)"
        state = before._replace(
            facts=facts,
            route=None,
            language=before.language or self.config.default_language,
            said=(*before.said, said[:SAID_LENGTH]),
        )
        heard = staff.Notice(
            talk["id"], talk["session_id"], before, state,
            is_about_lead=True, is_lost=False, now=now, agrees=False,
        )  # fmt: skip
        outgoing: list[outbox.Outgoing] = []
        changes: list[leads.Change] = []
        state = await staff.record(tx, self.config, self.link, heard, outgoing, changes)
        await run(
            tx, "save_form", conversation=talk["id"], said=_transcript(mail), state=state.stored(),
            email=facts.email, score=talk["score"], qualified_at=talk["qualified_at"],
        )  # fmt: skip
        named = sorted(chat.named_in(mail.text))
        await run(tx, "name", conversation=talk["id"], emails=named)
        await leads.save(tx, changes)
        outgoing.append(steps.event("followup.replied", step, lead_id=state.lead))
        await outbox.add_all(tx, outgoing)
        is_theirs = _address(mail.sender) == step["email"]
        lead_id = UUID(state.lead) if state.lead else None
        found = await sql.row(tx, "lead", id=lead_id) if lead_id else None
        about = {
            "lead_id": lead_id, "conversation_id": talk["id"], "email": facts.email,
            "name": facts.name, "language": state.language,
        }  # fmt: skip
        if mail.stops and not is_theirs:
            await self._tell(tx, mail.key, "stop", [said], now, **about)
        elif found is not None and found["state"] == "new":  # nobody has it: it is asked for
            await self._tell(tx, mail.key, "reply", [said], now, **about)
        if mail.stops and is_theirs:
            return await self._withdraw(tx, mail, step, "mail", now)
        return len(await steps.stop(tx, "reply", talk["id"], email=step["email"]))

    async def _unknown(
        self, tx: AsyncConnection, mail: Read, email: str | None, now: datetime
    ) -> int:
        """Show staff a mail that names no step. It proves nothing: only the sender's mails end."""
        if (await run(tx, "told_lately")).scalar_one() < TOLD_AN_HOUR:
            await run(tx, "told", key=mail.key)
            said = [mail.subject, mail.text[:SAID_LENGTH], *(name for name, _ in mail.files)]
            await self._tell(
                tx, mail.key, "unknown", [*filter(None, said)], now, email=email or mail.sender
            )
        if mail.kind != "message" or email is None:
            return 0
        return len(await steps.stop(tx, "reply", email=email))

    async def tell_of_the_rest(self) -> None:
        """Tell staff how many mails there were that they were not told of, once a day."""
        now = datetime.now(UTC)
        async with self.engine.begin() as tx:
            count = (await run(tx, "not_reported")).scalar_one()
            if count:
                await self._tell(tx, f"digest {now.date()}", "digest", [str(count)], now)

    async def confirm(self, address: str) -> None:
        """Ask staff to open what SNS sent: only then Amazon SES reports."""
        async with self.engine.begin() as tx:
            await self._tell(tx, f"sns {address}", "confirm", [address], datetime.now(UTC))

    async def unreadable(self, place: str) -> None:
        """Tell staff of a mail that broke its reader; of several in one place once a day."""
        now = datetime.now(UTC)
        async with self.engine.begin() as tx:
            await self._tell(tx, f"unreadable {place} {now.date()}", "failed", [place], now)
        metrics.MAILS.labels("unreadable").inc()

    async def _tell(
        self, tx: AsyncConnection, key: str, about: str, said: list[str], now: datetime,
        **known: Any,
    ) -> None:  # fmt: skip
        language = self.config.staff_language
        lead_id = known.get("lead_id")
        body = messages.visitor_mail(
            key, now, topic=WORDS["staff"][language][about], said=said, staff_language=language,
            transcript_url=self.link(lead_id) if lead_id else None, **known,
        )  # fmt: skip
        alert = messages.visitor_alert("visitor.mail", "warning", body)
        message = Message(body["id"], messages.ALERT_ACCEPTED, alert)
        await outbox.add(tx, ALERTS.name, ALERTS_INTAKE, message)


async def report_address(tx: AsyncConnection, email: str, *, takes_mail: bool) -> None:
    body = messages.address_report(email, takes_mail=takes_mail, at=datetime.now(UTC))
    sent = enrolment.command(messages.ADDRESS_REPORT, body, uuid.uuid4())
    await outbox.add_all(tx, [sent])


def _outcome(mail: Read, *, is_known: bool) -> Outcome:
    if mail.kind == "auto":
        return "auto"
    if not is_known:
        return "unknown"
    return "reply" if mail.kind == "message" else mail.kind


def _address(sender: str) -> str | None:
    try:
        return normalise(sender)
    except MalformedEmail:
        return None


def _transcript(mail: Read) -> str:
    files = [f"📎 {name} ({size} B)" for name, size in mail.files]
    return "\n\n".join(filter(None, [f"✉ {mail.subject}", mail.text, *files]))
