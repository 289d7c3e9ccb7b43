"""Takes answers: reads, decides and writes under the case's row lock, then commits, then replies.

A crash before the commit changes nothing, and the caller, who saw no reply, asks again; after it,
the same key gets the same reply. Of two concurrent answers, the lock makes one the owner.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.process.logs import log
from libs.domain import acts_outbox
from libs.domain.acts import Act
from services.alerts import messages, metrics, topology
from services.alerts.cases import steps
from services.alerts.config.texts import language_of
from services.alerts.rules import case
from services.alerts.rules.case import (
    FOLLOWUPS,
    LONGEST_WISH,
    Answer,
    Cancelled,
    Change,
    Moved,
    Refused,
    Rules,
    State,
    Verb,
    Via,
)
from services.alerts.store.cases import cases
from services.alerts.store.cases.cases import Ticked

Result = dict[str, Any]
"""The case's state: state, owner (a name), since (ISO 8601), version."""


@dataclass(frozen=True, slots=True)
class Refusal:
    why: Refused
    owner: str | None = None  # name
    since: str | None = None
    reason: str | None = None  # why it was cancelled
    language: str | None = None  # of the staff


@dataclass(frozen=True, eq=False)
class Answers:
    engine: AsyncEngine
    rules: Rules

    async def answer(
        self, case_id: UUID, answer: Answer, act: Act | None = None
    ) -> Result | Refusal:
        """Take an answer; when this returns a result, it is durable and no further step starts.

        :param act: of a caller of the API; answers by link or in Slack are in the case itself
        """
        async with self.engine.begin() as tx:
            row, known = await self._begin(tx, case_id, answer)
            if known is not None:
                return known
            now = await cases.now(tx)
            answer = case.chosen(answer, self.rules.hours_of(row.hours), now)
            latest = None
            if answer.verb is Verb.LATER:
                latest = await self._latest(tx, row, now)
            elif answer.verb is Verb.REMIND:
                latest = now + LONGEST_WISH
            decided = case.decide(row, answer, now=now, latest=latest)
            if isinstance(decided, Refused):
                shown = _result(row)
                return Refusal(
                    decided, shown["owner"], shown["since"], row.reason, language_of(row)
                )
            if decided is None:
                after = row
            elif decided.state is State.CANCELLED:
                after = await cases.cancel(tx, row, Cancelled.MANUAL)
            elif answer.verb is Verb.HAND_OVER:
                after = await self._hand_over(tx, row, answer, decided, now)
            else:
                done_by = self._done_by(row, decided, now)
                after = await cases.change(tx, row, decided, done_by)
            result = _result(after)
            await cases.record(tx, row, answer, result)
            await self._tell_followups(tx, row, after)
            if act is not None:
                await acts_outbox.add(tx, act)
        if after.state == State.ANSWERED != row.state and row.event_type in self.rules.policies:
            waited = (after.answered_at - row.opened_at).total_seconds()
            metrics.CASE_ANSWER_SECONDS.labels(row.event_type).observe(waited)
        log.info("case.answered", case_id=str(case_id), verb=answer.verb, via=answer.via)
        return result

    async def _tell_followups(self, tx: AsyncConnection, row: Any, after: Any) -> None:
        """Tell followups whether a person has the lead, in the answer's transaction."""
        policy = self.rules.policies.get(row.event_type)
        if row.source != FOLLOWUPS or (policy is not None and not policy.stops_followups):
            return
        if (row.state == State.ANSWERED) == (after.state == State.ANSWERED):
            return
        # The first alert about a lead has the lead's id.
        lead_id = UUID((row.payload or {}).get("lead_id", str(row.alert_id)))
        taken = after.state == State.ANSWERED
        type_ = messages.CASE_ANSWERED if taken else messages.CASE_RELEASED
        name, at = (after if taken else row).owner_name, await cases.clock(tx)
        message = messages.owned(type_, row.alert_id, lead_id, row.request_id, at, name)
        await outbox.add(tx, topology.EVENTS.name, message.type, message)

    async def _hand_over(
        self, tx: AsyncConnection, row: Any, answer: Answer, taken: Change, now: datetime
    ) -> Any:
        """Give a locked case back, let the colleague take it, and tell them: one transaction.

        So nobody else is asked in between, and what the old owner was shown is out of date.
        """
        free = await cases.change(tx, row, Change(State.OPEN, restart=now))
        await self._tell_followups(tx, row, free)
        after = await cases.change(tx, free, taken, self._done_by(free, taken, now))
        # No header of a caller has a line break.
        key, to = f"to\n{answer.key}", str(taken.owner)
        theirs = Answer(Verb.TAKEN, to, str(taken.name), answer.via, key)
        await self._tell_followups(tx, free, after)
        await cases.record(tx, free, theirs, _result(after))
        notice = self.rules.reminder(case.chain_of(row.chain), to)
        told = Ticked.of(after, Moved(State.ANSWERED, after.step, after.next_at, notice), to)
        await steps.tick(tx, [told], now, self.rules.needs)
        return await cases.lock(tx, row.alert_id)

    async def give_back(self, case_id: UUID) -> None:
        """Release a case in its owner's name, if it has no outcome and they were reminded."""
        async with self.engine.begin() as tx:
            row = (await cases.run(tx, "lock_forgotten", case_id=case_id)).one_or_none()
            if row is None:  # closed or released in the meantime
                return
            # No header of a caller has a line break, so none can have used this key.
            key, why = f"timer\n{row.generation}", "no outcome in time"
            released = Answer(Verb.RELEASE, row.owner, row.owner_name, Via.TIMER, key, why)
            again = Change(State.OPEN, restart=await cases.now(tx))
            after = await cases.change(tx, row, again)
            await cases.record(tx, row, released, _result(after))
            await self._tell_followups(tx, row, after)
        metrics.CASE_FORGOTTEN.labels("released").inc()
        log.warning("case.given_back", case_id=str(case_id))

    async def _begin(
        self, tx: AsyncConnection, case_id: UUID, answer: Answer
    ) -> tuple[Any, Result | Refusal | None]:
        await cases.run(tx, "limit")
        row = await cases.lock(tx, case_id)
        if row is None:
            return None, Refusal(Refused.UNKNOWN)
        before = await cases.run(tx, "answered_before", case_id=case_id, key=answer.key)
        if (known := before.one_or_none()) is None:
            return row, None
        if (known.verb, known.person) != (answer.verb, answer.person):
            return row, Refusal(Refused.KEY_USED)
        return row, known.result

    def _done_by(self, row: Any, what: Change, now: datetime) -> datetime | None:
        """Return when the owner is to be reminded."""
        policy = self.rules.policies.get(row.event_type)
        if policy is None or policy.done_within is None:
            return None
        if what.state is not State.ANSWERED or what.outcome is not None:
            return None
        return self.rules.hours_of(row.hours).add(now, timedelta(seconds=policy.done_within))

    async def _latest(self, tx: AsyncConnection, row: Any, now: datetime) -> datetime | None:
        policy = self.rules.policies.get(row.event_type)
        if policy is None:  # it is no longer configured
            return None
        before = await cases.run(tx, "laters", case_id=row.alert_id)
        return case.latest(policy, self.rules.hours_of(row.hours), before, now)


def _result(row: Any) -> Result:
    since = row.answered_at or row.ended_at or row.opened_at
    return {
        "state": row.state,
        "owner": row.owner_name,
        "since": since.isoformat(),
        "version": row.version,
    }
