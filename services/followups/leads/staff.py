"""Notifies staff of leads and other requests, and of their changes.

Rows and events are written in the turn's transaction: what a reply claims was passed on is passed
on, whatever crashes next. Later changes wait in the row until `due_at`, so that three messages in
a row make one update.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import beside
from libs.common.messaging import outbox
from libs.common.messaging.broker import HIGH, Message
from libs.common.process import logs
from services.followups import messages, metrics
from services.followups.config import Config
from services.followups.dialogue.state import SAID, State
from services.followups.messages import LEAD
from services.followups.rules import score as lead_score
from services.followups.rules.fact_texts import CONTACTS, for_lead, summary, wishes
from services.followups.rules.facts import OF_WORKS, Facts
from services.followups.store import acts, conversations, leads, sql
from services.followups.store.leads import OF_FORM, Change, Lead
from services.followups.store.sql import run
from services.followups.topology import ALERTS, ALERTS_INTAKE, EVENTS

OPEN, CLOSED = 2, 3
WORK_WORDS = 3
MOST_WISHES = 10
"""From other conversations, which anyone who knows a contact may start; staff read all words."""
HEARD = 4000
"""Letters of what was said, for the search: the last ones."""
_WORKS = {*OF_WORKS, "budget_range", "area_range"}
_PERSON = CONTACTS | {"name"}
BATCH = 50

WORDS: dict[str, dict[str, str]] = beside.toml(__file__, "act_words.toml")
"""What staff read about the acts of others."""
Link = Callable[[UUID], str]
"""Makes the link to a lead's page in the console, which asks for a login and records who looks."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A form that was sent: staff get one event of it, under its id, without waiting for more."""

    id: UUID
    form: str
    qualifies: bool
    """With it the lead first reaches the threshold."""
    known: Mapping[str, Any]
    """What it says, without what its conversation knows."""
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
    """The turn sends consent an agreement to mails, for the address in `state`."""
    submission: Submission | None = None
    is_request: bool = True
    """False: staff correct the person in the lead that `state` names, whatever its state."""


async def record(
    tx: AsyncConnection,
    config: Config,
    link: Link,
    heard: Notice,
    outgoing: list[outbox.Outgoing],
    changes: list[Change],
) -> State:
    """Note what staff must know, and notify them now unless there is something to wait for.

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
    contacts = contacts_of(state.facts) if topic == LEAD else []
    # A corrected address may be someone else's: it must no longer find the lead.
    before = heard.before.facts
    taken_back = {
        name: value
        for name, value in (("email", before.email), ("phone", before.phone))
        if value is not None and getattr(state.facts, name) != value
    }
    found = await _request(tx, config, heard, topic, contacts)
    if found is None:
        return state
    row, takes = found
    is_other = row.heard_in != heard.conversation_id
    is_own = row.conversation_id == heard.conversation_id or not heard.is_request
    # Once others have added to it: who began it may have named their number, to take it from them.
    is_shared = heard.is_request and is_own and _has_others(row)
    known = _learn(row, heard, taken_back, is_own=is_own, is_shared=is_shared, takes=takes)
    is_same = known.get("email") == state.facts.email
    standing = {
        "may_mail": _may_mail(heard, row.known) if is_same else row.known.get("may_mail"),
        "lost": (heard.is_lost and takes != CLOSED) or takes == 1,
    }
    known = {name: value for name, value in (known | standing).items() if value}
    said = [*row.said, *state.said]
    if sent is not None and len(row.known.get("also", ())) >= MOST_WISHES:  # no further one is kept
        said.append(summary(sent.known, config.staff_language))
    row = row._replace(
        heard_in=heard.conversation_id,
        language=str(state.language),
        known=known,
        said=list(filter(None, said))[-SAID:],
    )
    due_at = _due(config, row, heard, is_other=is_other)
    if due_at is not None and due_at <= heard.now:
        row, event = announce(config, link, row, heard.session_id, heard.now, sent)
        outgoing.append(event)
    else:
        row = row._replace(score=lead_score.score(known, config.rules).points, due_at=due_at)
    # Only in the lead's first conversation: in another one, anyone could name its number.
    if takes == OPEN and heard.is_lost and is_own and not is_shared:
        reason = " ".join(state.said[-1:]) or None
        if (ended := await sql.row(tx, "lead", id=row.id)) is not None:
            await acts.change_state(tx, ended, "lost", "chat", heard.now, reason=reason)
    dropped = [] if is_shared else [f"{kind}:{value}" for kind, value in taken_back.items()]
    changes.append(Change(row, contacts, dropped, is_heard=heard.is_request))
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


async def _request(
    tx: AsyncConnection, config: Config, heard: Notice, topic: str, contacts: Sequence[str]
) -> tuple[Lead, int] | None:
    """Find the request that this is about, or begin one.

    :returns: it, and how it takes this (`takes`, or CLOSED: staff only read it); 0: it is new.
        None: staff correct one that was erased
    """
    state = heard.state
    known_id = UUID(state.lead) if topic == LEAD and state.lead else None
    if not heard.is_request:
        row = known_id and await sql.row(tx, "lead", id=known_id)
        return (Lead.of(row), OPEN) if row else None
    since = heard.now - config.lead.reopens_after
    found = await leads.find(
        tx, heard.conversation_id, topic, known_id=known_id, contacts=contacts, since=since
    )
    if found and (found["takes"] or heard.is_lost):  # choosing another company asks for nothing
        is_open = found["state"] in {"new", "taken"}
        return Lead.of(found), found["takes"] or (OPEN if is_open else CLOSED)
    if found and topic == LEAD:  # no other lead of these contacts is open and young
        email = state.facts.email
        # A conversation that another turn has locked keeps its bar: that turn waits for our locks.
        here = heard.conversation_id
        await run(tx, "resume_followups_of_free", conversation=here, email=email)
    return await _new(tx, heard, topic, found), 0


def _learn(
    row: Lead,
    heard: Notice,
    taken_back: Mapping[str, str],
    *,
    is_own: bool,
    is_shared: bool,
    takes: int,
) -> dict[str, Any]:
    """Return what is known of a lead, including what is said now."""
    wrong = taken_back if is_own and not is_shared else {}
    kept = {name: value for name, value in row.known.items() if value != wrong.get(name)}
    told = _told(row, heard)
    if not heard.is_request:
        return kept | {name: value for name, value in told.items() if name in _PERSON}
    if is_own and not (heard.submission and takes):
        if not is_shared:
            return kept | told
        kept |= told | {name: kept[name] for name in CONTACTS & kept.keys()}
    return _beside(kept, heard, is_own=is_own)


def _told(row: Lead, heard: Notice) -> dict[str, Any]:
    """Return what is known of the person, without what staff have corrected since it was said."""
    told, before = _known(heard.state), _known(heard.before)
    if row.edited:
        for name in told.copy():
            is_old = name == "wish" or before.get(name) == told[name]  # a wish only grows
            if name.removesuffix("_range") in row.edited and is_old:
                del told[name]
    return told


def _has_others(row: Lead) -> bool:
    """Return whether another conversation has added to a lead."""
    sources = {each["from"] for each in row.known.get("also", ())} - {str(row.conversation_id)}
    return not all(source.startswith(OF_FORM) for source in sources)


def _beside(known: Mapping[str, Any], heard: Notice, *, is_own: bool) -> dict[str, Any]:
    """Add what another conversation, or a form, says; nothing is overwritten.

    What differs is another wish, with everything said about its works, and with the contacts of
    another conversation, even if it says nothing else.
    """
    sent, source = heard.submission, str(heard.conversation_id)
    told = _known(heard.state)
    if sent is not None and heard.state.lead:  # of the same conversation: it is not the chat's wish
        told, source = dict(sent.known), f"{OF_FORM}{sent.id}"
    differs = {name for name, value in told.items() if known.get(name, value) != value}
    if not differs.isdisjoint(_WORKS):
        differs |= _WORKS & told.keys()
    given = differs if is_own else differs | CONTACTS
    wish = {name: value for name, value in told.items() if name in given}
    told = {name: value for name, value in told.items() if name not in differs}
    also = [each for each in known.get("also", ()) if each["from"] != source]
    is_new = all(wish | {"from": each["from"]} != each for each in also)
    if wish and is_new and len(also) < MOST_WISHES:
        also.append(wish | {"from": source})
    return {**told, **known} | ({"also": also} if also else {})


async def _new(
    tx: AsyncConnection, heard: Notice, topic: str, previous: Mapping[str, Any] | None
) -> Lead:
    """:param previous: the request that this one follows, locked"""
    here, number, follows = heard.conversation_id, 0, None
    known: dict[str, Any] = {}
    if previous is not None:
        by = previous["state_by"] if previous["state"] != "new" else None
        owner = leads.person(previous["owner"] or by)  # releases before 0006 did not note it
        follows = {"id": str(previous["id"]), "state": previous["state"], "owner": owner}
        taken = (await run(tx, "lead_ids", conversation=here, topic=topic)).scalars()
        number = len(taken)
        while messages.lead_id(here, topic, number) in taken:
            number += 1
        before, email = previous["known"], heard.state.facts.email
        if before.get("no_calls") and not heard.state.wants_call:
            known["no_calls"] = True
        if email and before.get("email") == email and "may_mail" in before:
            known |= {"email": email, "may_mail": before["may_mail"]}
    return Lead(
        id=messages.lead_id(here, topic, number),
        topic=topic,
        conversation_id=here,
        heard_in=here,
        language="",
        score=0,
        known=known,
        notified=None,
        said=[],
        version=0,
        due_at=None,
        previous=follows,
        edited=[],
        heard="",
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
    if sent.is_told or (is_new and row.previous):  # a form is whole: there is nothing to wait for
        return heard.now
    return None if is_new else due


def _patience(config: Config, row: Lead, state: State) -> timedelta:
    if row.topic != LEAD and config.topics[row.topic].severity == "critical":
        return timedelta(0)
    if row.notified is None and _is_contact_only(state):
        return config.lead.contact_only_after
    return config.lead.update_after


def _is_contact_only(state: State) -> bool:
    return state.facts.is_contact_only and not (state.said or state.wants_call)


def contacts_of(facts: Facts) -> list[str]:
    """Return the contacts that identify a person in any conversation."""
    return conversations.Subject(facts.email, facts.phone).contacts


def _known(state: State) -> dict[str, Any]:
    flags = {
        "no_calls": state.no_calls,
        "wants_call": state.wants_call,
        "call_time": state.call_time,
    }
    return for_lead(state.facts) | {name: value for name, value in flags.items() if value}


def _may_mail(heard: Notice, known: Mapping[str, Any]) -> str | None:
    """Return the state of consent to mails: as consent last said, or as this turn will make it.

    A yes here waits until consent says that it counts (`hear_consent` of queries.sql).
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
    act: Sequence[str] | None = None,
) -> tuple[Lead, outbox.Outgoing]:
    """Make the event for the outbox and the row to save in the same transaction.

    :param act: what staff did, in their language, each in a line
    """
    first = row.notified is None
    topic = config.topics.get(row.topic)
    event_id = row.id if first else messages.update_id(row.id, row.version)
    body = _body(
        config,
        link,
        row,
        session_id,
        event_id=event_id if sent is None else sent.id,
        topic=topic.label[config.staff_language] if topic else None,
        is_update=not first,
        at=now,
        form=None if sent is None else sent.form,
        act=act,
    )
    event = _event(body, row, topic.severity if topic else "info", sent)
    if row.topic == LEAD and first:
        metrics.LEADS.inc()
    metrics.NOTIFIED.labels(row.topic, "new" if first else "update").inc()
    row = row._replace(
        score=body["score"],
        notified=row.known,
        said=[],
        heard=" ".join((row.heard, *row.said)).strip()[-HEARD:],
        version=row.version + 1,
        due_at=None,
    )
    return row, event


def _body(
    config: Config, link: Link, row: Lead, session_id: str | None, **given: Any
) -> dict[str, Any]:
    scored = lead_score.score(row.known, config.rules)
    return messages.request(
        lead_id=row.id,
        conversation_id=row.heard_in,
        session_id=session_id,
        known=row.known,
        changes=list(_changes(row)),
        said=row.said,
        language=row.language,
        staff_language=config.staff_language,
        score=scored.points,
        hot=scored.points >= config.lead.threshold,
        reasons=list(scored.reasons),
        summary=summary(row.known, config.staff_language),
        work=_work(row.known.get("wish"), config.works),
        transcript_url=link(row.id),
        previous=row.previous,
        **given,
    )


def remind(
    config: Config, link: Link, row: Mapping[Any, Any], now: datetime, *, over: bool = False
) -> outbox.Outgoing:
    """Make the alert that the time of a planned call has come: it asks whoever planned it first.

    :param over: somebody has called since, or need not: the alert's case ends
    """
    lead = Lead.of(row)._replace(said=[])
    owner = leads.person(row["owner"]) or row.get("planned_by")
    key = messages.call_id(lead.id, row["call_at"])
    body = _body(
        config, link, lead, None, event_id=messages.update_id(key, 1) if over else key,
        topic=WORDS[config.staff_language]["call"], is_update=False, at=now,
        act=[line for line in (owner, row.get("plan")) if line],
    )  # fmt: skip
    alert = messages.visitor_alert(messages.LEAD_CALL, "warning", body | {"asks_first": owner})
    alert |= {"dedup_key": str(key), "resolved": over}
    message = Message(body["id"], messages.ALERT_ACCEPTED, alert, logs.request_id.get())
    return ALERTS.name, ALERTS_INTAKE, message


def _changes(row: Lead) -> tuple[str, ...]:
    """Return what is new; for a new lead, only that it is over."""
    if row.notified is not None:
        names = lead_score.changed(row.notified, row.known)
        others = [wishes(known, "en") for known in (row.notified, row.known)]
        return tuple(name for name in names if name != "also" or others[0] != others[1])
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
        while await self.announce(datetime.now(UTC)) == BATCH:
            pass
        while await self.remind(datetime.now(UTC)) == BATCH:
            pass

    async def announce(self, now: datetime) -> int:
        """:returns: how many leads were due"""
        async with self._engine.begin() as tx:
            rows = await sql.rows(tx, "due_leads", limit=BATCH)
            announced = [
                announce(self._config, self._link, Lead.of(row), row["session_id"], now)
                for row in rows
            ]
            if announced:
                await leads.save(tx, [Change(saved) for saved, _ in announced])
                await outbox.add_all(tx, [event for _, event in announced])
        return len(rows)

    async def remind(self, now: datetime) -> int:
        """:returns: how many planned calls were due"""
        async with self._engine.begin() as tx:
            rows = await sql.rows(tx, "due_calls", limit=BATCH)
            await outbox.add_all(tx, [remind(self._config, self._link, row, now) for row in rows])
        return len(rows)
