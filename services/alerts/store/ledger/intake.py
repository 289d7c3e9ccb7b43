"""Writes accepted alerts as rows, and counts repeats of an alert on its row."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database import postgres
from libs.common.database.queries import Queries
from services.alerts.rules.delivery import Reason
from services.alerts.rules.subjects import Hash

run = Queries(__file__)

Key = tuple[UUID, str]
"""The key of a delivery: alert id and target."""


class NewRow(NamedTuple):
    """A delivery as intake writes it."""

    alert_id: UUID
    target: str
    event_type: str
    severity: str
    source: str
    payload: dict[str, Any] | None
    dedup_key: str | None
    request_id: str | None
    accepted_at: datetime
    once_address: str | None = None
    once_purpose: str | None = None
    once_reference: str | None = None
    once_not_after: datetime | None = None
    failed: Reason | None = None
    """It ends at once: it has no route, names a data subject that was erased since, or is
    silenced."""
    silence: int | None = None
    subjects: tuple[Hash, ...] = ()
    resolved: bool = False
    caller: str | None = None

    @property
    def key(self) -> Key:
        return self.alert_id, self.target

    @property
    def fired_at(self) -> datetime:
        return self.accepted_at

    def emptied(self) -> Self:
        once_address = self.once_address and str(Reason.ERASED)
        return self._replace(
            payload=None,
            dedup_key=None,
            once_address=once_address,
            failed=Reason.ERASED,
            subjects=(),
        )


def same(one: Any, other: Any) -> bool:
    """Return whether two alerts, or an alert and a case, are about one thing, for one caller.

    An unknown caller matches any.
    """
    first, second = ((each.source, each.event_type, each.dedup_key) for each in (one, other))
    return first == second and (one.caller == other.caller or None in {one.caller, other.caller})


def rank(one: Any) -> int:
    return ("info", "warning", "critical").index(one.severity)


@dataclass(frozen=True, slots=True)
class Taken:
    added: int
    silenced: int  # of those added
    repeats: Mapping[Key, UUID]
    """The first alert of each repeat; a repeat has no row of its own."""
    settled: Collection[UUID]
    """Alerts that need no case: repeats, taken before, or over before they came."""


async def lock(tx: AsyncConnection, rows: Sequence[NewRow]) -> None:
    """Let intakes of alerts about the same things wait for each other; before any other lock."""
    names = {f"alerts dedup\n{row.dedup_key}" for row in rows if row.dedup_key is not None}
    if names:
        await run(tx, "lock", keys=sorted(map(postgres.advisory_key, names)))


async def accept(
    tx: AsyncConnection, rows: Sequence[NewRow], window: float, ending: Collection[UUID] = ()
) -> Taken:
    """Write the rows that do not exist yet and count them; count a repeat on the first alert.

    :param rows: locked by `lock`
    :param window: seconds between two alerts, at most, for the later to be a repeat
    :param ending: alerts that have ended a case, and are not repeats
    """
    keyed = [row for row in rows if row.dedup_key is not None and row.once_address is None]
    repeats, closed, late, unsaid, settled = await _repeats(tx, keyed, window, ending)
    given = [
        row._replace(resolved=True, dedup_key=None)
        if row.key in late
        else row._replace(failed=row.failed or Reason.SILENCED)
        if row.key in unsaid
        else row
        for row in rows
        if row.key not in repeats
    ]
    added = silenced = 0
    if repeats:
        await run(tx, "totals", targets=sorted({row.target for row in rows}))
    if given:
        added, silenced = (
            await run(tx, "accept", rows=json.dumps([row._asdict() for row in given], default=str))
        ).one()
    if repeats:
        document = [
            row._asdict() | {"first_id": repeats[row.key]} for row in rows if row.key in repeats
        ]
        await run(tx, "count", rows=json.dumps(document, default=str))
    if closed:
        ids, targets = zip(*closed, strict=True)
        await run(tx, "close", alert_ids=list(ids), targets=list(targets))
    return Taken(added, silenced, repeats, settled)


async def _repeats(
    tx: AsyncConnection, rows: Sequence[NewRow], window: float, ending: Collection[UUID]
) -> tuple[dict[Key, UUID], list[Key], set[Key], set[Key], set[UUID]]:
    """Find the rows that repeat another one, in the ledger or in this batch.

    A message that alerts are over closes them, and the next alert closes that: closed rows have no
    key. A redelivered message gets the answer it had before.

    :returns: the first alert of each repeat, what is to be closed, what was over before it came,
        ends of what was silenced there, and alerts that need no case
    """
    if not rows:
        return {}, [], set(), set(), set()
    found = await run(tx, "seen", alert_ids=list({row.alert_id for row in rows}))
    seen: dict[Key, UUID | None] = {(one.alert_id, one.target): one.first_id for one in found}
    repeats = {row.key: first for row in rows if (first := seen.get(row.key)) is not None}
    closed, late, unsaid = list[Key](), set[Key](), set[Key]()
    near = timedelta(seconds=window)
    since = min(row.accepted_at for row in rows) - near
    known = defaultdict[str | None, list[Any]](list)
    keys = [row.dedup_key for row in rows]
    for one in await run(tx, "known", dedup_keys=keys, at=since):
        known[one.dedup_key].append(one)
    ends = [row for row in rows if row.resolved]
    for row in sorted((row for row in rows if row.key not in seen), key=_age):
        at, mine = row.accepted_at, [one for one in known[row.dedup_key] if same(one, row)]
        first = min(_repeated(row, mine, near), key=_age, default=None)
        if not row.resolved and any(
            one.fired_at >= at for one in (*mine, *ends) if one.resolved and same(one, row)
        ):
            late.add(row.key)
        elif first is not None and window and row.failed is None and row.alert_id not in ending:
            repeats[row.key] = first.alert_id
        else:
            past = [one for one in mine if one.resolved != row.resolved and one.fired_at <= at]
            closed += [(one.alert_id, one.target) for one in past]
            here = {one.failed for one in past if one.target == row.target}
            if row.resolved and here == {Reason.SILENCED}:
                unsaid.add(row.key)
            known[row.dedup_key] = [*(one for one in known[row.dedup_key] if one not in past), row]
    settled = {alert_id for alert_id, _ in (*seen, *repeats, *late)}
    return repeats, closed, late, unsaid, settled


def _repeated(row: NewRow, mine: Sequence[Any], window: timedelta) -> list[Any]:
    """Return the alerts on which to count those that say nothing new at their target."""
    here = [one for one in mine if one.target == row.target and one.alert_id != row.alert_id]
    here = [one for one in here if one.failed in {None, Reason.RESOLVED}]
    at = row.accepted_at
    if row.resolved:  # it is said, or has fired again since
        return [one for one in here if one.resolved or one.fired_at > at]
    here = [one for one in here if not one.resolved and rank(one) >= rank(row)]
    return [one for one in here if abs(at - one.accepted_at) < window]


def _age(row: Any) -> tuple[datetime, UUID]:
    return row.accepted_at, row.alert_id
