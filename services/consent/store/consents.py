"""Consents, permits and the suppression list."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import ConsentState, Permit, State
from services.consent.store.sql import sql
from services.consent.store.tables import consent_state, suppression


async def state_of(tx: AsyncConnection, subject_id: UUID, purpose: str) -> State | None:
    state = await tx.scalar(
        sa.select(consent_state.c.state).where(
            consent_state.c.subject_id == subject_id, consent_state.c.purpose == purpose
        )
    )
    return state and State(state)


_STATES = sql(
    """
    SELECT lookup_hash, purpose, state
    FROM consent_state JOIN data_subject ON data_subject.id = subject_id
    WHERE lookup_hash = ANY(CAST(:hashes AS bytea[]))
""",
    lookup_hash=sa.LargeBinary,
    purpose=sa.Text,
    state=sa.Text,
)


async def states_of_all(
    tx: AsyncConnection, lookup_hashes: Sequence[bytes]
) -> list[dict[str, State]]:
    """Read the states by purpose of each hash; an unknown one has none, at the same cost."""
    found: dict[bytes, dict[str, State]] = {}
    for row in await _STATES.execute(tx, {"hashes": list(set(lookup_hashes))}):
        found.setdefault(row.lookup_hash, {})[row.purpose] = State(row.state)
    return [found.get(each, {}) for each in lookup_hashes]


async def states(tx: AsyncConnection, lookup_hash: bytes) -> dict[str, State]:
    (found,) = await states_of_all(tx, [lookup_hash])
    return found


async def dated_states(tx: AsyncConnection, subject_id: UUID) -> dict[str, sa.Row[Any]]:
    """Read `state` and `changed_at` by purpose."""
    rows = await tx.execute(
        sa.select(consent_state).where(consent_state.c.subject_id == subject_id)
    )
    return {row.purpose: row for row in rows}


_GRANT = sql("""
    INSERT INTO consent_state AS mine (subject_id, purpose, state, changed_at)
    VALUES (:subject, :purpose, 'granted', clock_timestamp())
    ON CONFLICT (subject_id, purpose) DO UPDATE SET
        state = excluded.state,
        version = mine.version + 1,
        changed_at = excluded.changed_at
    WHERE mine.state <> excluded.state
""")


async def grant(tx: AsyncConnection, subject_id: UUID, purpose: str) -> None:
    """Record an agreement to a purpose; the version changes only if the state does."""
    await _GRANT.execute(tx, {"subject": subject_id, "purpose": purpose})


_WITHDRAW = sql("""
    INSERT INTO consent_state AS mine (subject_id, purpose, state, changed_at, withdrawn_at)
    SELECT :subject, purpose, 'withdrawn', clock_timestamp(), coalesce(:at, clock_timestamp())
    FROM unnest(CAST(:purposes AS text[])) AS purpose
    ON CONFLICT (subject_id, purpose) DO UPDATE SET
        state = excluded.state,
        version = mine.version + CAST(mine.state <> excluded.state AS integer),
        changed_at = CASE WHEN mine.state = excluded.state THEN mine.changed_at
            ELSE excluded.changed_at END,
        withdrawn_at = greatest(mine.withdrawn_at, excluded.withdrawn_at)
""")


async def withdraw(
    tx: AsyncConnection, subject_id: UUID, purposes: Iterable[str], at: datetime | None = None
) -> None:
    """Withdraw purposes; the version changes only when the state does, `withdrawn_at` always.

    :param at: the time of the withdrawal, if it was before now
    """
    await _WITHDRAW.execute(tx, {"subject": subject_id, "purposes": list(purposes), "at": at})


_AGREED_AFTER = sql("""
    SELECT EXISTS (SELECT FROM consent_state WHERE subject_id = :subject AND purpose = :purpose
        AND (withdrawn_at >= :at OR (state = 'granted' AND changed_at > :at)))
""")


async def agreed_after(tx: AsyncConnection, subject_id: UUID, purpose: str, at: datetime) -> bool:
    """Return whether that withdrawal is recorded here, or an agreement followed it."""
    values = {"subject": subject_id, "purpose": purpose, "at": at}
    return bool((await _AGREED_AFTER.execute(tx, values)).scalar())


_READ = sql("""
    SELECT purpose, version,
        CAST(extract(epoch FROM clock_timestamp() - greatest(changed_at, last)) AS float) AS age,
        unreturned
    FROM consent_state, LATERAL (SELECT count(*) AS unreturned, max(granted_at) AS last FROM permit
         WHERE permit.subject_id = consent_state.subject_id AND returned_at IS NULL) AS permits
    WHERE subject_id = :subject AND purpose = ANY(CAST(:purposes AS text[]))
""")


async def read(tx: AsyncConnection, subject_id: UUID, purposes: Iterable[str]) -> ConsentState:
    """Read versions and permits; an earlier statement of the caller has locked the subject's row.

    In one statement with the lock, the count would be as old as the wait for the lock.
    """
    rows = await _READ.execute(tx, {"subject": subject_id, "purposes": list(purposes)})
    return ConsentState(
        versions={row.purpose: row.version for row in rows},
        unreturned=rows[0].unreturned,
        withdrawn_for=min(row.age for row in rows),
    )


_OPEN = sql("""
    INSERT INTO permit (message, attempt, subject_id, granted_at)
    VALUES (:message, :attempt, :subject, clock_timestamp())
    ON CONFLICT (message, attempt) DO NOTHING
""")


# One attempt has one address: another subject's permit does not count.
_PERMIT = sql("""
    SELECT CAST(extract(epoch FROM clock_timestamp() - granted_at) AS float) AS age,
        returned_at IS NOT NULL OR subject_id IS DISTINCT FROM :subject AS closed
    FROM permit WHERE message = :message AND attempt = :attempt
""")


async def open_permit(tx: AsyncConnection, subject_id: UUID, message: UUID, attempt: int) -> Permit:
    """Record a permit for this attempt unless there is one, and return the one there is."""
    values = {"message": message, "attempt": attempt, "subject": subject_id}
    if (await _OPEN.execute(tx, values)).rowcount:
        return Permit(age=0, returned=False)
    # A separate statement, so that it sees a duplicate whose commit the insert has waited for.
    row = (await _PERMIT.execute(tx, values)).one()
    return Permit(age=row.age or 0.0, returned=row.closed)


_RETURN = sql("""
    INSERT INTO permit (message, attempt, returned_at)
    VALUES (:message, :attempt, clock_timestamp())
    ON CONFLICT (message, attempt) DO UPDATE
        SET returned_at = coalesce(permit.returned_at, excluded.returned_at)
""")


async def return_permit(tx: AsyncConnection, message: UUID, attempt: int) -> None:
    """Close it for good; a return that overtakes its request leaves a tombstone."""
    await _RETURN.execute(tx, {"message": message, "attempt": attempt})


_SUPPRESS = sql("""
    WITH waiting AS (
        DELETE FROM opt_in
        WHERE subject_id = :subject AND purpose = ANY(CAST(:purposes AS text[]))
    )
    INSERT INTO suppression AS mine (suppression_hash, purpose, keep_until, never_ask)
    SELECT :hash, purpose, now() + make_interval(days => :days), :never_ask
    FROM unnest(CAST(:purposes AS text[])) AS purpose
    ON CONFLICT (suppression_hash, purpose) DO UPDATE SET
        keep_until = excluded.keep_until,
        never_ask = mine.never_ask OR excluded.never_ask
""")


async def suppress(
    tx: AsyncConnection,
    subject_id: UUID,
    suppression_hash: bytes,
    purposes: Iterable[str],
    days: int,
    *,
    never_ask: bool = False,
) -> None:
    """Suppress an address, and void its links that wait for a confirmation.

    :param never_ask: for good: no link is mailed to it any more
    """
    values = {"subject": subject_id, "hash": suppression_hash, "purposes": list(purposes)}
    await _SUPPRESS.execute(tx, values | {"days": days, "never_ask": never_ask})


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What prevents a new agreement."""

    suppressed: bool
    never_ask: bool
    withdrawn_at: datetime | None
    granted: bool
    """There is an earlier agreement that counts."""


_RESTRICTIONS = sql("""
    SELECT
        (SELECT never_ask FROM suppression
         WHERE suppression_hash = :hash AND purpose = :purpose AND keep_until > now()) AS never_ask,
        state.state, state.withdrawn_at
    FROM (VALUES (1)) AS one LEFT JOIN consent_state AS state
        ON state.subject_id = :subject AND state.purpose = :purpose
""")


async def restrictions(
    tx: AsyncConnection, subject_id: UUID, suppression_hash: bytes, purpose: str
) -> Restrictions:
    """Read the suppression, and the withdrawal, which may outlive it."""
    values = {"subject": subject_id, "hash": suppression_hash, "purpose": purpose}
    row = (await _RESTRICTIONS.execute(tx, values)).one()
    return Restrictions(
        suppressed=row.never_ask is not None or row.state == State.WITHDRAWN,
        never_ask=bool(row.never_ask),
        withdrawn_at=row.withdrawn_at,
        granted=row.state == State.GRANTED,
    )


async def lift_suppression(tx: AsyncConnection, suppression_hash: bytes, purpose: str) -> None:
    await tx.execute(
        sa.delete(suppression).where(
            suppression.c.suppression_hash == suppression_hash, suppression.c.purpose == purpose
        )
    )
