"""What is sent with a form becomes a lead, in one transaction (docs/protocols.md, E).

    gateway                       followups                          outbox relay
    lead.submit, confirmed   ->   inbox, submission, conversation,   ->   grant.record
    or POST /internal/leads       lead, steps, outbox: commit             lead.qualified or
                                  then the acknowledgement                lead.submitted

Killed before the commit, nothing is stored and the message comes again. Killed after it, the inbox
knows the id and the outbox publishes. Both ways may bring one submission: it has one id.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import inbox, outbox
from libs.common.process.logs import log
from libs.domain import acts_outbox
from libs.domain.acts import Act, refs
from libs.domain.company import split_pair
from libs.domain.events import occurred
from libs.domain.forms import Form, Forms
from services.followups import messages, metrics
from services.followups.config import Config
from services.followups.dialogue.state import State
from services.followups.leads import staff
from services.followups.mails import enrolment
from services.followups.messages import MARKETING, LeadSubmit
from services.followups.reading import area, money, starts
from services.followups.rules import facts
from services.followups.rules import score as lead_score
from services.followups.rules.fact_texts import for_lead
from services.followups.rules.facts import Facts
from services.followups.store import conversations, leads, sql, steps
from services.followups.store.conversations import Subject
from services.followups.store.sql import run
from services.followups.store.submissions import Erased
from services.followups.topology import LEADS_QUEUE

SAID_LENGTH = 4000


class NotHeld(Exception):  # noqa: N818 - reads as the answer it is
    """There is no such submission, or someone has decided about it."""


@dataclass(frozen=True, eq=False)
class Submissions:
    engine: AsyncEngine
    config: Config
    forms: Forms
    link: staff.Link
    erased: Erased

    async def take(self, given: LeadSubmit) -> None:
        """Store a submission; a second copy of it changes nothing."""
        async with self.engine.begin() as tx:
            outcome = await self._take(tx, given)
        metrics.SUBMISSIONS.labels(given.form, outcome).inc()
        log.info("lead.submitted", form=given.form, outcome=outcome)

    async def decide(self, submission_id: uuid.UUID, state: str, by: str, act: Act) -> None:
        """Treat a suspected submission as a lead after all (`released`), or delete its content.

        :raises NotHeld:
        """
        outcome = None
        async with self.engine.begin() as tx:
            row = await sql.row(tx, "submission", id=submission_id)
            given = LeadSubmit.model_validate(row["held"]) if row and row["held"] else None
            # Contacts are locked first, as everywhere; then the decision is looked at again.
            if given is None or await self.erased.since(tx, given.contacts, given.accepted_at):
                raise NotHeld
            row = await sql.row(tx, "lock_submission", id=submission_id)
            if row is None or row["state"] != "suspected":
                raise NotHeld
            if state == "released":
                outcome = await self._store(tx, given, released_by=by)
            else:
                await run(tx, "discard", id=submission_id, by=by)
            await acts_outbox.add(tx, act)
        if outcome:
            metrics.SUBMISSIONS.labels(given.form, outcome).inc()

    async def correct(
        self, subject: Subject, right: Mapping[str, str], headers: Mapping[str, str]
    ) -> None:
        """Correct what is known of a person, and notify staff. What the person once wrote stays.

        :param headers: of the request, which name who acts
        """
        now, ids = datetime.now(UTC), []
        async with self.engine.begin() as tx:
            rows = await sql.rows(tx, "own", email=subject.email, phone=subject.phone)
            given = [Facts.of(right), *(State.of(row["state"]).facts for row in rows)]
            contacts = {each for facts in given for each in staff.contacts_of(facts)}
            talks = [row["id"] for row in rows]
            known = await run(tx, "lock_leads", contacts=list(contacts), conversations=talks)
            for row in rows:
                outgoing: list[outbox.Outgoing] = []
                changes: list[leads.Change] = []
                before = State.of(row["state"])
                state = before._replace(facts=before.facts.learn(Facts.of(right)))
                old, new = before.facts.email, state.facts.email
                if old != new and state.consent == "given":  # it does not carry over
                    state = state._replace(consent=None, wording=None)
                for lead in (each for each in known if each.conversation_id == row["id"]):
                    about = state._replace(lead=str(lead.id), route=None)
                    heard = staff.Notice(
                        row["id"], row["session_id"], before, about,
                        is_about_lead=True, is_lost=False, now=now, agrees=False, is_request=False,
                    )  # fmt: skip
                    told = await staff.record(tx, self.config, self.link, heard, outgoing, changes)
                    state = state._replace(said=told.said)
                said = enrolment.Said(
                    "", row["session_id"] or "", Facts(), None, None, None, None,
                    source="correction",
                )  # fmt: skip
                outgoing += enrolment.undone(said, before, state, now)
                if old and old != new:
                    state = await enrolment.leave(tx, row["id"], before, state)
                await run(tx, "correct", id=row["id"], state=state.stored(), email=new)
                await leads.save(tx, changes)
                await outbox.add_all(tx, outgoing)
                ids += [change.row.id for change in changes]
            act = Act.of(headers, "person.correct", "lead", refs(ids))
            await acts_outbox.add(tx, act)

    async def _take(self, tx: AsyncConnection, given: LeadSubmit) -> str:
        if await self.erased.since(tx, given.contacts, given.accepted_at):
            return "erased"
        if not await inbox.first_time(tx, LEADS_QUEUE, str(given.id)):
            return "duplicate"
        if given.suspicion is None:
            return await self._store(tx, given)
        held = given.model_dump(mode="json")
        row = _row(given) | {"state": "suspected", "held": held}
        await run(tx, "save_submission", submission=row)
        return "suspected"

    async def _store(
        self, tx: AsyncConnection, given: LeadSubmit, *, released_by: str | None = None
    ) -> str:
        """Create the lead; the caller has locked its contacts.

        Lock order, as in the chat: conversation, contacts and lead, address.

        :returns: the event that staff get, or `none`
        """
        config, now = self.config, datetime.now(UTC)
        form = self.forms.get(given.form)
        talk = await conversations.enter_conversation(
            tx, given.session_id or f"form:{given.id}", now - config.lead.reopens_after
        )
        conversation_id: uuid.UUID = talk["id"]
        before = State.entered(talk)
        told = _facts(given.facts, now.astimezone(config.hours.zone).date())
        facts = before.facts.learn(told)
        if before.lead and before.facts.contradicts(told):  # other works than the chat's
            facts = facts._replace(**before.facts.of_works())
        state = before._replace(
            facts=facts,
            language=given.language,
            route=None,  # a form is a request, whatever the chat was about
            said=_said(given, form, config.staff_language),
        )
        email, others = state.facts.email, {each.purpose for each in given.consents} - {MARKETING}
        grants = {each: given.facts[split_pair(each)[1]] for each in others}
        state = state._replace(grants={**state.grants, **grants})
        if agreed := next(iter(given.to_mails), None):
            state = state._replace(
                consent="given",
                wording=agreed.text,
                granted_to=email,
                withdrawn_from=None,
            )
        scored = lead_score.score(state.facts.known(), config.rules)
        qualifies = talk["qualified_at"] is None and scored.points >= config.lead.threshold
        outgoing: list[outbox.Outgoing] = []
        heard = staff.Notice(
            conversation_id=conversation_id,
            session_id=given.session_id,
            before=before,
            state=state,
            is_about_lead=True,
            is_lost=False,
            now=now,
            agrees=bool(given.to_mails),
            submission=staff.Submission(
                given.id,
                form=given.form,
                known=for_lead(told),
                qualifies=qualifies,
                is_told=qualifies or form is None or form.alert == "always",
            ),
        )
        changes: list[leads.Change] = []
        state = await staff.record(tx, config, self.link, heard, outgoing, changes)
        said = enrolment.Said(
            message="",
            session_id=given.session_id or f"form:{given.id}",
            passed=told,
            language=given.language,
            agreed=None,
            ip_address=given.client_address,
            user_agent=given.user_agent,
            ip_address_from=given.client_address_from,
        )
        outgoing += enrolment.undone(said, before, state, now)
        if before.facts.email and before.facts.email != email:
            left = await enrolment.leave(tx, conversation_id, before, state)
            state = left._replace(granted_to=state.granted_to)
        outgoing += [grant(given, consent) for consent in given.consents]
        await run(
            tx,
            "save_form",
            conversation=conversation_id,
            said=_transcript(given, form),
            state=state.stored(),
            email=email,
            score=scored.points,
            qualified_at=now if qualifies else talk["qualified_at"],
        )
        row = _row(given) | {
            "state": "accepted" if released_by is None else "released",
            "conversation_id": conversation_id,
            "lead_id": state.lead,
            "taken_by": released_by,
        }
        await run(tx, "save_submission", submission=row)
        await leads.save(tx, changes)
        submitted = occurred(
            "form.submitted", uuid.uuid5(given.id, "form.submitted"), lead_id=state.lead,
            conversation_id=conversation_id, form=given.form, language=given.language,
            email=email, phone=state.facts.phone,
            name=state.facts.name, values=given.fields,
        )  # fmt: skip
        await outbox.add_all(tx, [*outgoing, submitted])
        if email:
            await steps.lock_address(tx, email)
            sequence = form.sequence if form is not None else enrolment.DEFAULT_SEQUENCE
            agrees = bool(given.to_mails) or (qualifies and state.consent == "given")
            starts = sequence if agrees and state.barred is None else None
            again = bool(before.facts.email)
            await enrolment.go_on(
                tx, config, conversation_id, email, now, again=again, starts=starts, by="form"
            )
        kinds = [message.type for _, _, message in outgoing]
        return next((kind for kind in kinds if kind in messages.LEAD_EVENTS), "none")


def check(forms: Forms, config: Config) -> None:
    """:raises SystemExit: a form's sequence is not one of followups.toml"""
    for name, form in forms.items():
        if form.sequence not in config.sequences:
            known = ", ".join(config.sequences)
            raise SystemExit(f"forms.{name}.sequence: {form.sequence!r} is none of {known}")


_KEPT = {
    "id", "form", "form_version", "language", "fields", "page", "notice_version",
    "consents_not_recorded", "suspicion", "accepted_at",
}  # fmt: skip


def _row(given: LeadSubmit) -> dict[str, Any]:
    contacts = {name: given.facts.get(name) for name in ("email", "phone")}
    return given.model_dump(include=_KEPT) | contacts


def _facts(given: Mapping[str, str], today: date) -> Facts:
    """Read each fact as the chat reads the answer to its question."""
    found: dict[str, Any] = {name: given.get(name) for name in ("email", "phone")}
    if (name := given.get("name")) is not None:
        found["name"] = facts.person_name(name)
    if (wish := given.get("wish")) is not None:
        found["wish"] = " ".join(wish.split())[: facts.WISH_LENGTH]
    found |= area.find(given.get("area", ""), today, "area")[1]
    found |= money.find(given.get("budget", ""), today, "budget")[1]
    found |= starts.find(given.get("start", ""), today, "start")[1]
    return Facts.of(found)


def _said(given: LeadSubmit, form: Form | None, language: str) -> tuple[str, ...]:
    """Return what no fact covers completely: the person's words, and fields without a fact."""
    lines = []
    for name, value in given.fields.items():
        field = form.field(name) if form is not None else None
        if field is not None and field.fact == "wish":
            lines.append(value)
        elif field is None or field.fact is None:
            lines.append(f"{_label(name, form, language)}: {value}")
    # Whether sales may call for marketing, by which words: as of this form; the page asks consent.
    lines += [f"✓ {each.text}" for each in given.consents if each.purpose != MARKETING]
    said = "\n".join(lines)[:SAID_LENGTH]
    return (said,) if said else ()


def _transcript(given: LeadSubmit, form: Form | None) -> str:
    lines = [f"{_label(name, form, given.language)}: {text}" for name, text in given.fields.items()]
    lines += [f"✓ {consent.text}" for consent in given.consents]
    return "\n".join(lines)


def _label(name: str, form: Form | None, language: str) -> str:
    field = form.field(name) if form is not None else None
    return field.label[language] if field is not None and field.label else name


def grant(given: LeadSubmit, consent: messages.SubmittedConsent) -> outbox.Outgoing:
    """Record an agreement. It was given when the gateway took it: a device's clock may lie."""
    channel = split_pair(consent.purpose)[1]
    evidence = {"submission": str(given.id), "form": given.form, "page": given.page}
    if given.agreed_at is not None:
        evidence["agreed_at"] = given.agreed_at.isoformat()
    body = messages.grant_record(
        given.facts[channel],
        purpose=consent.purpose,
        wording=consent.text,
        language=consent.language,
        session_id=given.session_id,
        ip_address=given.client_address,
        ip_address_from=given.client_address_from,
        user_agent=given.user_agent,
        at=given.accepted_at,
        source=given.source or "form",
        place="form",
        wording_version=f"{given.form}/{consent.version}",
        evidence=evidence,
    )
    metrics.GRANTS.inc()
    return enrolment.command(messages.GRANT_RECORD, body, uuid.uuid5(given.id, consent.purpose))
