"""Notifies staff of leads and other requests, and of their changes.

Rows and events are written in the turn's transaction: what a reply claims was passed on is passed
on, whatever crashes next. Later changes wait in the row until `due_at`, so that three messages in
a row make one update.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database import postgres
from libs.common.messaging import outbox
from libs.common.messaging.broker import HIGH, Message
from libs.common.process import logs
from services.followups import messages, metrics
from services.followups.config import Config
from services.followups.dialogue.state import SAID, State
from services.followups.rules import score as lead_score
from services.followups.rules.fact_texts import summary
from services.followups.rules.facts import Facts
from services.followups.store import leads
from services.followups.store.leads import Change, Lead
from services.followups.topology import ALERTS, ALERTS_INTAKE, EVENTS

log = logs.get_logger(__name__)


LEAD = "lead"
WORK_WORDS = 3
POLL_SECONDS = 1.0
BATCH = 50

Link = Callable[[UUID], str]
"""Makes the link to a lead's page in the console, which asks for a login and records the look."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A form that was sent: staff get one event of it, under its id, without waiting for more."""

    id: UUID
    form: str
    qualifies: bool
    """The lead reaches the threshold with it for the first time."""
    is_told: bool
    """False: its form's `alert` leaves it to the list of leads."""


class Notice(NamedTuple):
    """The parts of a turn that matter to staff."""

    conversation_id: UUID
    session_id: str | None
    before: State
    state: State
    is_about_lead: bool
    is_lost: bool
    """The person says that they chose another company."""
    now: datetime
    agrees: bool
    """Consent is told of an agreement to mails, at the address in `state`."""
    submission: Submission | None = None


async def record(
    tx: AsyncConnection,
    config: Config,
    link: Link,
    heard: Notice,
    outgoing: list[outbox.Outgoing],
    changes: list[Change],
) -> State:
    """Note what staff must know, and notify them now if there is nothing to wait for.

    :param outgoing: events for staff are appended here
    :param changes: leads are appended here; the caller saves them in the same transaction
    :returns: the state, without the words that staff are now notified of
    """
    state = heard.state
    route = config.routes.named(state.route)
    topic = LEAD if route is None or route.topic is None else route.topic
    if topic != LEAD and state.wants_quote:
        of_sales = heard._replace(state=state._replace(route=None))
        sold = await record(tx, config, link, of_sales, outgoing, changes)
        state = state._replace(lead=sold.lead)
    at_once = topic != LEAD and config.topics[topic].at_once
    if not (state.reachable or at_once) or (topic == LEAD and not heard.is_about_lead):
        return state
    sent = heard.submission
    if sent is None and not _is_news(heard, topic):
        return state
    contacts = _contacts(state.facts) if topic == LEAD else []
    # A corrected address may be someone else's: do not find the lead by it any more.
    before = heard.before.facts
    taken_back = {
        name: value
        for name, value in (("email", before.email), ("phone", before.phone))
        if value is not None and getattr(state.facts, name) != value
    }
    known_id = UUID(state.lead) if topic == LEAD and state.lead else None
    found = await leads.find(tx, heard.conversation_id, topic, known_id=known_id, contacts=contacts)
    row = Lead.of(found) if found else _new(heard, topic)
    is_other = row.heard_in != heard.conversation_id
    taken_back_or_over = taken_back | {"lost": True}
    kept = {
        name: value
        for name, value in row.known.items()
        if value != taken_back_or_over.get(name) and name != "may_mail"
    }
    known = kept | _known(state) | ({"lost": True} if heard.is_lost else {})
    known |= {"may_mail": may_mail} if (may_mail := _may_mail(heard, row.known)) else {}
    row = row._replace(
        heard_in=heard.conversation_id,
        language=str(state.language),
        known=known,
        said=[*row.said, *state.said][-SAID:],
    )
    due_at = _due(config, row, heard, is_other=is_other)
    if due_at is not None and due_at <= heard.now:
        row, event = announce(config, link, row, heard.session_id, heard.now, sent)
        outgoing.append(event)
    else:
        row = row._replace(score=lead_score.score(known, config.rules).points, due_at=due_at)
    # Only in the lead's first conversation: in another one, anyone could name its number.
    if found and heard.is_lost and row.conversation_id == heard.conversation_id:
        reason = " ".join(state.said[-1:]) or None
        await leads.set_state(tx, row.id, "lost", reason=reason, by="chat")
    elif found and found["state"] == "lost" and not heard.is_lost:
        await leads.set_state(tx, row.id, "new", reason="wrote again", by="chat")
    dropped = [f"{kind}:{value}" for kind, value in taken_back.items()]
    changes.append(Change(row, contacts, dropped))
    lead_id = str(row.id) if topic == LEAD else state.lead
    return state._replace(said=(), lead=lead_id)


def _is_news(heard: Notice, topic: str) -> bool:
    before, state = heard.before, heard.state
    if topic == LEAD and state.lead is None:
        return True
    if state.said or heard.is_lost or before.route != state.route:
        return True
    if before.consent != state.consent:
        return True
    return _known(state) != _known(before)


def _new(heard: Notice, topic: str) -> Lead:
    here = heard.conversation_id
    new_id = messages.lead_id(here) if topic == LEAD else messages.topic_id(here, topic)
    return Lead(
        id=new_id,
        topic=topic,
        conversation_id=here,
        heard_in=here,
        language="",
        score=0,
        known={},
        notified=None,
        said=[],
        version=0,
        due_at=None,
    )


def _due(config: Config, row: Lead, heard: Notice, *, is_other: bool) -> datetime | None:
    """Return when staff are to be notified."""
    due, sent = row.due_at, heard.submission
    is_new = row.notified is None
    if is_new or lead_score.changed(row.notified, row.known) or row.said or is_other:
        due = due or heard.now + _patience(config, row, heard.state)
    if is_new and not _is_contact_only(heard.state):
        due = heard.now
    if sent is None:
        return due
    if sent.is_told:  # what a form says is whole: there is nothing to wait for
        return heard.now
    return None if is_new else due


def _patience(config: Config, row: Lead, state: State) -> timedelta:
    if row.topic != LEAD and config.topics[row.topic].severity == "critical":
        return timedelta(0)
    if row.notified is None and _is_contact_only(state):
        return config.contact_only_after
    return config.update_after


def _is_contact_only(state: State) -> bool:
    return state.facts.is_contact_only and not (state.said or state.wants_call)


def _contacts(facts: Facts) -> list[str]:
    """Return the contacts that identify a person in any conversation."""
    given = {"email": facts.email, "phone": facts.phone}
    return [f"{kind}:{value}" for kind, value in given.items() if value is not None]


def _known(state: State) -> dict[str, Any]:
    flags = {
        "no_calls": state.no_calls,
        "wants_call": state.wants_call,
        "budget_range": state.budget_from and [state.budget_from, state.facts.budget],
    }
    return state.facts.known() | {name: value for name, value in flags.items() if value}


def _may_mail(heard: Notice, known: Mapping[str, Any]) -> str | None:
    """Return how consent to mails stands: as consent said last, or as it will when it hears this.

    A yes here waits until consent says that it counts (`leads.hear_consent`).
    """
    state, email = heard.state, heard.state.facts.email
    before = known.get("may_mail") if known.get("email") == email else None
    refuses = state.consent == "refused" and (
        heard.before.consent != "refused" or state.withdrawn_from != email
    )
    if refuses:
        return "refused"
    return "waiting" if heard.agrees and before != "given" else before


def announce(
    config: Config,
    link: Link,
    row: Lead,
    session_id: str | None,
    now: datetime,
    sent: Submission | None = None,
) -> tuple[Lead, outbox.Outgoing]:
    """Make the event for the outbox and the row to save in the same transaction."""
    first = row.notified is None
    facts = Facts.of(row.known)
    least, most = row.known.get("budget_range", (None, None))
    scored = lead_score.score(row.known, config.rules)
    topic = config.topics.get(row.topic)
    event_id = row.id if first else messages.update_id(row.id, row.version)
    body = messages.request(
        event_id=event_id if sent is None else sent.id,
        lead_id=row.id,
        conversation_id=row.heard_in,
        session_id=session_id,
        known=row.known,
        changes=_changes(row),
        said=row.said,
        language=row.language,
        staff_language=config.staff_language,
        score=scored.points,
        is_hot=scored.points >= config.threshold,
        reasons=scored.reasons,
        summary=summary(
            facts, config.staff_language, budget_from=least if most == facts.budget else None
        ),
        work=_work(facts.wish, config.works),
        topic=topic.label[config.staff_language] if topic else None,
        is_update=not first,
        transcript_url=link(row.id),
        at=now,
        form=None if sent is None else sent.form,
    )
    event = _event(body, row, topic.severity if topic else "info", sent)
    if row.topic == LEAD and first:
        metrics.LEADS.inc()
    metrics.NOTIFIED.labels(row.topic, "new" if first else "update").inc()
    row = row._replace(
        score=scored.points, notified=row.known, said=[], version=row.version + 1, due_at=None
    )
    return row, event


def _changes(row: Lead) -> tuple[str, ...]:
    """Return what is new; of a new lead only that it is over."""
    if row.notified is not None:
        return lead_score.changed(row.notified, row.known)
    return ("lost",) if row.known.get("lost") else ()


def _work(wish: str | None, works: tuple[str, ...]) -> str | None:
    """Return the requested work in the person's own words: `remont kuchni`."""
    words = re.findall(r"[^\W\d_]+", wish or "")
    found = list(dict.fromkeys(word.lower() for word in words if word.lower().startswith(works)))
    return " ".join(found[:WORK_WORDS]) or None


def _event(
    body: dict[str, Any], row: Lead, severity: str, sent: Submission | None
) -> outbox.Outgoing:
    request_id = logs.request_id.get()
    if row.topic == LEAD:
        first = row.notified is None
        kind = messages.LEAD_QUALIFIED if first else messages.LEAD_UPDATED
        if sent is not None and not (first and sent.qualifies):
            kind = messages.LEAD_SUBMITTED
        return EVENTS.name, kind, Message(body["id"], kind, body, request_id=request_id)
    # An alert, not an event: alerts escalates an alert that no route takes.
    accepted = messages.visitor_alert(f"visitor.{row.topic}", severity, body)
    priority = HIGH if severity == "critical" else None
    message = Message(body["id"], messages.ALERT_ACCEPTED, accepted, request_id, priority=priority)
    return ALERTS.name, ALERTS_INTAKE, message


class Announcer:
    """Notifies staff of due leads. Any number of replicas may run concurrently.

    The claim, the outbox row and the `notified` column are one transaction: after a crash either
    the lead is still due, or the relay publishes the event.
    """

    def __init__(self, engine: AsyncEngine, config: Config, link: Link) -> None:
        self._engine = engine
        self._config = config
        self._link = link

    async def run(self) -> None:
        while True:
            with postgres.through_outages("staff.database_unavailable"):
                while await self.announce(datetime.now(UTC)) == BATCH:
                    pass
            await asyncio.sleep(POLL_SECONDS)

    async def announce(self, now: datetime) -> int:
        """:returns: how many leads were due"""
        async with self._engine.begin() as tx:
            rows = await leads.due(tx, BATCH)
            announced = [
                announce(self._config, self._link, Lead.of(row), row["session_id"], now)
                for row in rows
            ]
            if announced:
                await leads.save(tx, [Change(saved) for saved, _ in announced])
                await outbox.add_all(tx, [event for _, event in announced])
        return len(rows)
