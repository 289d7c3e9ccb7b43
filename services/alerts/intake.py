"""Intake: accepted alerts become ledger rows and work messages."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database.group_commit import Batches, pace
from libs.common.messaging import outbox
from libs.common.messaging.broker import HIGH, Broker, Message, PublishError
from libs.common.messaging.consumer import Ack, Disposition, Retry, Unreadable
from libs.common.process.logs import log
from services.alerts import messages, metrics, topology
from services.alerts.config.targets import UNROUTED, Config
from services.alerts.messages import OPTIONAL_EVENTS, AlertAccepted, HeartbeatPing, OnceTerms
from services.alerts.rules import silence
from services.alerts.rules.case import FOLLOWUPS, Policy, Rules
from services.alerts.rules.delivery import Reason, State
from services.alerts.rules.heartbeats import Kind, Schedule
from services.alerts.rules.heartbeats import beat as decide
from services.alerts.rules.silence import Quiet
from services.alerts.rules.subjects import Hash, Subjects, Wanted
from services.alerts.store.cases import cases, heartbeats, silences
from services.alerts.store.cases.cases import Opening
from services.alerts.store.ledger import gaps, intake, privacy, transitions, upkeep
from services.alerts.store.ledger.intake import NewRow, Taken

PREFETCH = 50
"""Of messages: 12.5 MiB, if each has 256 KiB, the largest; `consumer.IN_FLIGHT_BYTES` bounds how
much of that is parsed and copied at a time (P7)."""
MAX_BATCH = 200
PUBLISH_SECONDS = 5.0
_Alert = tuple[AlertAccepted, list[NewRow]]
_KEPT = (
    "event_type", "severity", "source", "payload", "dedup_key", "accepted_at", "resolved", "caller",
)  # fmt: skip


class Intake:
    """Resolves routes, writes rows, publishes work messages.

    A message is acknowledged after its rows are committed and its work messages confirmed. After a
    crash in between it is redelivered: the rows exist, and the work messages are published once
    more, which the claim absorbs.
    """

    def __init__(
        self,
        config: Config,
        engine: AsyncEngine,
        broker: Broker,
        subjects: Subjects,
        rules: Rules | None = None,
        sharing: Callable[[str], int] = lambda _: 1,
    ) -> None:
        """:param sharing: see TargetStatus.sharing"""
        self._sharing = sharing
        self._config = config
        self._rules = rules or Rules()
        self._subjects = subjects
        self._engine = engine
        self._broker = broker
        self._rows = Batches(self._write, limit=MAX_BATCH, pace=pace(MAX_BATCH))
        # For each queue on its own: one without a leader confirms nothing for a while.
        self._publishing = {
            topology.work_name(name): Batches(partial(self._publish, name), limit=MAX_BATCH)
            for name in config.targets
        }

    async def handle(self, message: Message) -> Disposition:
        """Take each alert as if it came alone; an unreadable one goes to `.dead` by itself."""
        together = message.type == messages.ALERTS_ACCEPTED
        alerts: list[_Alert] = []
        unreadable: list[Message] = []
        for each in messages.each_accepted(message) if together else [message]:
            try:
                accepted = messages.accepted(each)
                rows = self.rows(accepted, each.request_id)
            except Unreadable:
                if not together:
                    raise
                unreadable.append(each)
                continue
            if rows or accepted.numbered is not None:
                alerts.append((accepted, rows))
            else:
                log.info("intake.unrouted_event", type=each.type)
        taken = await asyncio.gather(*map(self._rows.submit, alerts), return_exceptions=True)
        refused = await asyncio.gather(
            *(
                self._publishing[key].submit(work)
                for (_, rows), written in zip(alerts, taken, strict=True)
                if isinstance(written, Taken)
                for _, key, work in _works(rows, written)
            )
        )
        for failed in taken:
            if isinstance(failed, BaseException):
                raise failed
        try:
            for each in unreadable:
                await self._broker.publish(topology.ALERTS.name, topology.INTAKE_QUEUE, each)
        except PublishError as error:
            refused.append(error)
        return next((Retry(type(error).__name__) for error in refused if error), Ack())

    async def _publish(
        self, target: str, works: Sequence[Message]
    ) -> Sequence[PublishError | None]:
        """Publish what was submitted together in fewer messages, critical work apart."""
        size = self._config.targets[target].together(self._sharing(target))
        groups: list[list[Message]] = []
        for priority in (HIGH, None):
            some = [work for work in works if work.priority == priority]
            groups += [some[start : start + size] for start in range(0, len(some), size)]
        sent = await self._broker.send_all(
            topology.ALERTS.name,
            topology.work_name(target),
            [self._broker.encode(messages.works(group)) for group in groups],
            timeout=PUBLISH_SECONDS,
        )
        pairs = zip(groups, sent, strict=True)
        outcomes = {work.id: outcome for group, outcome in pairs for work in group}
        return [outcomes[work.id] for work in works]

    async def accept(
        self, tx: AsyncConnection, alerts: Sequence[AlertAccepted], request_id: str | None
    ) -> None:
        """Take alerts that did not come through the broker; the outbox publishes their work."""
        rows = [row for accepted in alerts for row in self.rows(accepted, request_id)]
        taken = await self._accept(tx, rows)
        _count(taken)
        await outbox.add_all(tx, _works(rows, taken))
        await gaps.note(tx, alerts)

    async def reroute(self, tx: AsyncConnection, row: Any, operator: str | None) -> bool:
        """Resolve the routes again for a row whose target is no longer configured, and end it.

        :param row: locked
        :returns: False when still no route matches; nothing has changed
        """
        if row.event_type in messages.CASE_EVENTS:  # of this one target, whatever the routes say
            return False
        once = transitions.once_of(row)
        key = {"alert_id": row.alert_id, "target": row.target}
        found = await upkeep.run(tx, "payload_of", **key)
        accepted = AlertAccepted(
            id=row.alert_id,
            event_type=row.event_type,
            payload=found.scalar_one(),
            severity=row.severity,
            source=row.source,
            accepted_at=row.accepted_at,
            resolved=row.resolved,
            once=once and OnceTerms(**asdict(once)),
        )
        new = self.rows(accepted, row.request_id)
        if not new or new[0].failed is not None:
            return False
        why = f"handed to {', '.join(each.target for each in new)}"
        await upkeep.end(tx, [row], State.DISCARDED, Reason.REROUTED, why, operator)
        await self.accept(tx, [accepted], row.request_id)
        into = {"targets": [each.target for each in new], "attempt": row.attempt}
        await upkeep.run(tx, "continue_numbering", alert_id=row.alert_id, **into)
        return True

    def rows(self, accepted: AlertAccepted, request_id: str | None) -> list[NewRow]:
        """Resolve the routes: one row for each target.

        An alert without a route (the configuration has changed) becomes a failure, for operators.
        An event of a lead from the chat has no rows then.
        """
        once = accepted.once
        targets = self._config.route(accepted.event_type, accepted.target)
        if once is not None:
            # Only mail can be sent at most once, and by one target: a permit belongs to an attempt.
            targets = tuple(name for name in targets if self._config.targets[name].once)[:1]
        failed = None
        if not targets:
            if accepted.event_type in OPTIONAL_EVENTS:
                return []
            targets, failed = (UNROUTED,), Reason.UNROUTED
        named = self._subjects.named_by(
            accepted.payload, accepted.dedup_key, once.address if once else None
        )
        kept: dict[str, Any] = {name: getattr(accepted, name) for name in _KEPT}
        kept |= {f"once_{name}": getattr(once, name, None) for name in OnceTerms.model_fields}
        return [
            NewRow(
                alert_id=accepted.id,
                target=target,
                request_id=request_id,
                subjects=tuple(named),
                failed=failed,
                **kept,
            )
            for target in targets
        ]

    async def _write(self, batch: Sequence[_Alert]) -> list[Taken]:
        async with self._engine.begin() as tx:
            taken = await self._accept(tx, [row for _, rows in batch for row in rows])
            await gaps.note(tx, [accepted for accepted, _ in batch])
        _count(taken)
        return [taken] * len(batch)

    async def _accept(self, tx: AsyncConnection, rows: Sequence[NewRow]) -> Taken:
        """Write the rows; end the cases that they resolve, and open those that they need."""
        own: list[NewRow] = []
        if self._rules.heartbeats:
            own = [row for over in await self._sign(tx, rows) for row in self.rows(over, None)]
            rows = [*rows, *own]
        asking = self._asking(rows)
        quiet = await self._quiet(tx, rows, lock=bool(asking))
        rows = [_silenced(row, quiet.get(row.key)) for row in rows]
        await intake.lock(tx, rows)
        asks = {some[0].alert_id for _, some in asking}
        keyed = [row for row in rows if row.dedup_key and (row.resolved or row.alert_id in asks)]
        keys, ending = [row.dedup_key for row in keyed], set[UUID]()
        known: list[Any] = []
        if keys:  # the cases that have one, whoever owns them: locked before any delivery
            known = await cases.run(tx, "lock_of_keys", dedup_keys=keys)
        for case in known.copy():
            over = [row for row in keyed if row.resolved and intake.same(row, case)]
            if over := [row for row in over if row.accepted_at >= case.fired_at]:
                known.remove(case)
                await cases.resolve(tx, case)
                ending |= {row.alert_id for row in over}
                told = {row.key: Reason.RESOLVED for row in over if row.target in case.told_at}
                rows = [row._replace(failed=told.get(row.key, row.failed)) for row in rows]
        rows = await self._without_erased(tx, rows)
        taken = await intake.accept(tx, rows, self._config.dedup.window, ending)
        if asking := [each for each in asking if each[1][0].alert_id not in taken.settled]:
            openings = self._openings(asking, known, await cases.now(tx), quiet)
            await cases.open_cases(tx, openings)
        await outbox.add_all(tx, _works(own, taken))
        return taken

    async def _without_erased(self, tx: AsyncConnection, rows: Sequence[NewRow]) -> list[NewRow]:
        """Empty the rows of subjects that were erased after the acceptance (protocol C, step 6)."""
        named = {each for row in rows for each in row.subjects}
        erased = await privacy.erased_since(tx, named) if named else {}
        return [self._left(row, erased) if erased else row for row in rows]

    def _left(self, row: NewRow, erased: Mapping[Hash, datetime]) -> NewRow:
        at = row.accepted_at
        gone = {each for each in row.subjects if erased.get(each, at) > at}
        if not gone:
            return row
        key, address = row.dedup_key, row.once_address
        if not self._subjects.only_mentions(Wanted(gone), row.payload, address, key):
            return row.emptied()
        payload = self._subjects.strike(row.payload, gone)
        return row._replace(payload=payload, subjects=tuple(set(row.subjects) - gone))

    async def _sign(self, tx: AsyncConnection, rows: Sequence[NewRow]) -> list[AlertAccepted]:
        """Record that watched event types came; locks their rows, so before any case.

        :returns: the notices that these are back
        """
        came: dict[str, NewRow] = {}
        for row in sorted(rows, key=lambda row: row.accepted_at):
            if row.event_type in self._rules.heartbeats:
                came[row.event_type] = row
        locked = await heartbeats.run(tx, "lock_events", event_types=list(came)) if came else []
        signs = [
            (row, HeartbeatPing(
                id=sign.alert_id, heartbeat=row.id, url_version=row.version, at=sign.accepted_at,
                kind=Kind.SUCCESS,
            ))
            for row in locked
            if (sign := came[row.event_type])
        ]  # fmt: skip
        told = [await beat(tx, row, self._rules.schedule(row), sign) for row, sign in signs]
        return [alert for alert in told if alert is not None]

    def _asking(self, rows: Sequence[NewRow]) -> list[tuple[Policy, list[NewRow]]]:
        """Return the rows of each alert that wants an answer."""
        wanting: defaultdict[UUID, list[NewRow]] = defaultdict(list)
        for row in rows:
            if row.event_type in self._rules.policies and _is_new(row):
                wanting[row.alert_id].append(row)
        return [
            (policy, some)
            for some in wanting.values()
            if (policy := self._rules.policies[some[0].event_type])
            and not {row.target for row in some}.isdisjoint(policy.asks)
        ]

    async def _quiet(
        self, tx: AsyncConnection, rows: Sequence[NewRow], *, lock: bool
    ) -> dict[intake.Key, Quiet]:
        """Return the silence of each row that one covers; locks them, so before any case.

        Decided before there is a delivery, so protocol A knows nothing of it: what was accepted
        before the silence's commit is sent.
        """
        able = [row for row in rows if _may_be_silenced(row)]
        if not able:
            return {}
        running = await silences.since(tx, min(row.accepted_at for row in able), lock=lock)
        found = {row.key: silence.quiet(running, row) for row in able} if running else {}
        return {key: quiet for key, quiet in found.items() if quiet is not None}

    def _openings(
        self, asking: Sequence[tuple[Policy, Sequence[NewRow]]], known: Sequence[Any],
        now: datetime, quiet: Mapping[intake.Key, Quiet],
    ) -> Iterator[Opening]:  # fmt: skip
        """Yield the case of each alert: an open one of its key that has steps left, or its own."""
        running = (one for one in known if one.state == "open" and one.step < len(one.chain))
        open_: list[tuple[Any, UUID]] = [(case, case.alert_id) for case in running]
        for policy, rows in sorted(asking, key=lambda one: -intake.rank(one[1][0])):
            alert, asks = rows[0], [row for row in rows if row.target in policy.asks]
            waits = [quiet.get(row.key) for row in asks]  # if none of them is sent
            silenced = None if None in waits else max(filter(None, waits))
            same = (one for one in open_ if alert.dedup_key and intake.same(alert, one[0]))
            case, case_id = next(same, (None, alert.alert_id))
            rises = case is not None and intake.rank(alert) > intake.rank(case)
            if case is None or rises:  # and for the others of this batch
                open_.insert(0, (alert, case_id))
            within = self._rules.hours_of(policy.hours).add(now, timedelta(seconds=policy.within))
            yield Opening(
                alert_id=alert.alert_id,
                chain=self._rules.returning(policy.steps, _owner(alert)),
                hours=policy.hours,
                next_at=silenced.until if silenced else now if rises else within,
                silence=silenced.silence if silenced else None,
                asks=[row.target for row in asks],
                case_id=case_id,
                rises=rises,
            )


async def beat(
    tx: AsyncConnection, row: Any, schedule: Schedule, ping: HeartbeatPing
) -> AlertAccepted | None:
    """Apply a ping or a sign to its locked heartbeat; return the alert that it raises."""
    now = await cases.clock(tx)
    found = decide(row, ping.kind, min(ping.at, now), now, schedule)
    if found is None:
        return None
    alert = None
    if found.fails:
        alert = messages.heartbeat_failed(row, ping, now)
    elif found.recovers:
        alert = messages.heartbeat_over(row, now, "is back")
    case = {} if alert is None else {"case_id": alert.id if found.fails else None}
    await heartbeats.change(tx, row.id, found.values | case)
    return alert


async def accept_rows(tx: AsyncConnection, rows: Sequence[NewRow]) -> None:
    """Write rows about a case, which are never repeats; the outbox publishes their work."""
    if not rows:
        return
    taken = await intake.accept(tx, rows, 0)
    _count(taken)
    await outbox.add_all(tx, _works(rows, taken))


def _count(taken: Taken) -> None:
    metrics.ACCEPTED.inc(taken.added)
    metrics.SILENCED.inc(taken.silenced)


def _owner(row: NewRow) -> str | None:
    """Return who is asked first about a lead, by name: who had the person's last request, or who
    planned a call.
    """
    payload = (row.payload or {}) if row.source == FOLLOWUPS else {}
    return payload.get("asks_first") or (payload.get("previous") or {}).get("owner")


def _silenced(row: NewRow, quiet: Quiet | None) -> NewRow:
    return row if quiet is None else row._replace(failed=Reason.SILENCED, silence=quiet.silence)


def _may_be_silenced(row: NewRow) -> bool:
    """Return whether a silence counts: not for mails to others, and not for an end.

    An end is not sent where nothing that it ends was (`_repeats` of the ledger's intake).
    """
    able = messages.may_be_silenced(row.event_type)
    return able and row.failed is None and row.once_address is None and not row.resolved


def _is_new(row: NewRow) -> bool:
    """Return whether it may open a case: no mail to others, and no news about an alert."""
    update = row.resolved or (row.payload or {}).get("is_update")
    return row.once_address is None and not update


def _works(rows: Sequence[NewRow], taken: Taken) -> list[tuple[str, str, Message]]:
    return [
        topology.work(row, row.target)
        for row in rows
        if row.failed is None and row.key not in taken.repeats
    ]
