"""Writes the message of a step or an update when it is claimed, from the case's current state.

So a late message shows the current state, not the state when it was queued.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.engine import alone
from services.alerts.channels.templates import escape_slack, text_of
from services.alerts.config import texts
from services.alerts.messages import CASE_UPDATE
from services.alerts.rules.case import (
    ButtonValue,
    Person,
    Rules,
    State,
    Verb,
    hashed,
    menu,
    offered,
)
from services.alerts.rules.delivery import Button, Claimed
from services.alerts.store.cases import cases, places


async def written(
    engine: AsyncEngine, rules: Rules, channel: str, job: Claimed
) -> tuple[Claimed, int | None]:
    """Return the job with its message, and the `want` of its place that the message shows.

    :param channel: the target's channel
    """
    async with alone(engine) as tx:
        row = await places.read(tx, shown_at(job), job.target)
        link = await _link(tx, rules, channel, row)
    if row is None:  # the case was purged, long after its end
        return replace(job, payload={**job.payload, "text": job.event_type}), None
    return _written(rules, channel, job, row, link), row.want


async def unknown_copy(
    engine: AsyncEngine, rules: Rules, target: str, value: ButtonValue, receipt: Mapping[str, str]
) -> Claimed | None:
    """Return the update of a Slack message with this button, unless a place has its receipt.

    Such a message is a second copy: the response to its first posting was lost, with its `ts`.
    """
    async with alone(engine) as tx:
        row = await places.read(tx, value.shown_at, target)
    if row is None or row.alert_id != value.case_id or row.receipt == receipt:
        return None
    job = Claimed(
        alert_id=value.shown_at,
        target=target,
        event_type=CASE_UPDATE,
        payload={"place": str(value.shown_at)},
        accepted_at=row.now,
        request_id=row.request_id,
        due_at=row.now,
    )
    return _written(rules, "slack", job, row, None)


def _written(rules: Rules, channel: str, job: Claimed, row: Any, link: str | None) -> Claimed:
    reminds = _reminds(row)
    line = texts.line(row, rules.hours_of(row.hours), reminds=reminds)
    person = rules.person(row.person)
    how = texts.how_to(row, reminds=reminds)
    if how and link is None and rules.links is not None:
        link = rules.links.page(row.alert_id, row.payload or {})
    at = link and texts.answer_at(row, link)
    said = (line, at or how)
    payload: dict[str, Any] = {"subject": line, "text": "\n".join(filter(None, said))}
    if channel == "sms":
        payload["text"] = texts.without_diacritics(" ".join(filter(None, (line, at))))
    elif channel == "slack":
        mention = f"<@{person.slack}> " if person.slack and how else ""
        payload = {"text": mention + escape_slack(payload["text"]), "mrkdwn": True}
    if job.event_type == CASE_UPDATE:
        payload |= {"place": str(shown_at(job)), "receipt": row.receipt}
        if row.number is None and row.payload:  # an alert's own message, not a step's
            payload["alert"] = {"event_type": row.event_type, "payload": row.payload}
    payload["to"] = _address(rules, channel, row.person)  # None: the target's own recipient
    return replace(job, payload=payload, buttons=_buttons(rules, row, shown_at(job)))


async def with_buttons(engine: AsyncEngine, rules: Rules, job: Claimed) -> Claimed:
    """Return an alert's own job, with its case's buttons if it asks at this target."""
    async with alone(engine) as tx:
        row = await places.read(tx, job.alert_id, job.target)
    return job if row is None else replace(job, buttons=_buttons(rules, row, job.alert_id))


def recovered(job: Claimed) -> Claimed:
    """Return the job with texts that first say that it is over."""
    line = texts.texts("lines", job.payload.get("staff_language"))["recovered"]
    subject = job.payload.get("subject") or job.event_type
    text = line.format(text=text_of(job))
    said = {"subject": line.format(text=subject), "text": text, "resolved": True}
    return replace(job, payload={**job.payload, **said})


def _reminds(row: Any) -> bool:
    """Return whether a step is the reminder of an owner who has given no outcome yet."""
    last = row.step + max(row.told, 1) - 1
    is_last = (row.step_generation, row.number) == (row.generation, last)
    return is_last and row.state == State.ANSWERED and row.outcome is None


def _buttons(rules: Rules, row: Any, shown_at: UUID) -> tuple[Button, ...]:
    language, hours = texts.language_of(row), rules.hours_of(row.hours)
    value = ButtonValue(row.alert_id, row.generation, shown_at)
    others = [(key, each.name[:75]) for key, each in rules.people.items() if key != row.owner]
    colleagues = others[:100]  # Slack's limits

    def button(verb: Verb) -> Button:
        items = menu(verb, hours)
        choices = [
            (texts.item(each, hours.opens, language), str(replace(value, choice=each)))
            for each in items
        ]
        if verb is Verb.HAND_OVER:
            choices = [(name, str(replace(value, to=key))) for key, name in colleagues]
        return Button(verb, texts.label(verb, language), str(value), tuple(choices))

    verbs = offered(State(row.state), row.outcome)
    return tuple(button(verb) for verb in verbs if verb is not Verb.HAND_OVER or colleagues)


def shown_at(job: Claimed) -> UUID:
    """Return the alert id of the place where a case's message, or its alert itself, is shown."""
    return UUID(job.payload["place"]) if job.event_type == CASE_UPDATE else job.alert_id


def _address(rules: Rules, channel: str, name: str | None) -> str | None:
    person = rules.people.get(name or "", Person(""))
    return {"sms": person.phone, "email": person.email}.get(channel)


async def _link(tx: AsyncConnection, rules: Rules, channel: str, row: Any) -> str | None:
    """Make the link by which the step's person answers; None where others would read it."""
    asks = row is not None and (row.state in {State.OPEN, State.UNANSWERED} or _reminds(row))
    if rules.links is None or not asks or _address(rules, channel, row.person) is None:
        return None
    token = rules.links.token(row.alert_id, row.person, row.generation)
    await cases.run(
        tx, "add_link", hash=hashed(token), case_id=row.alert_id, person=row.person,
        generation=row.generation,
    )  # fmt: skip
    return rules.links.url(token)
