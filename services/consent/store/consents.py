"""What a person agreed to, what may be sent meanwhile (permits), and whom nothing is sent to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.consent import Permit, Standing, State
from services.consent.store.tables import consent_state, suppression


async def state_of(tx: AsyncConnection, person_id: UUID, purpose: str) -> State | None:
    state = await tx.scalar(
        sa.select(consent_state.c.state).where(
            consent_state.c.person_id == person_id, consent_state.c.purpose == purpose
        )
    )
    return state and State(state)


_STATES = sa.text("""
    SELECT address_hash, purpose, state FROM consent_state JOIN person ON person.id = person_id
    WHERE address_hash = ANY(CAST(:hashes AS bytea[]))
""").columns(address_hash=sa.LargeBinary, purpose=sa.Text, state=sa.Text)


async def states_of_all(
    tx: AsyncConnection, address_hashes: Sequence[bytes]
) -> list[dict[str, State]]:
    """Read each one's states by purpose; none for an unknown address, at the same cost."""
    found: dict[bytes, dict[str, State]] = {}
    for row in await tx.execute(_STATES, {"hashes": list(set(address_hashes))}):
        found.setdefault(row.address_hash, {})[row.purpose] = State(row.state)
    return [found.get(each, {}) for each in address_hashes]


async def states(tx: AsyncConnection, address_hash: bytes) -> dict[str, State]:
    (found,) = await states_of_all(tx, [address_hash])
    return found


_SET_STATE = sa.text("""
    INSERT INTO consent_state AS mine (person_id, purpose, state, changed_at)
    SELECT person, purpose, :state, clock_timestamp()
    FROM unnest(CAST(:persons AS uuid[])) AS person, unnest(CAST(:purposes AS text[])) AS purpose
    ON CONFLICT (person_id, purpose) DO UPDATE SET
        state = excluded.state,
        version = mine.version + 1,
        changed_at = excluded.changed_at
    WHERE mine.state <> excluded.state
""")


async def set_state(
    tx: AsyncConnection, persons: Iterable[UUID], purposes: Iterable[str], state: State
) -> None:
    """Bring these purposes into this state; the version moves only when the state does."""
    values = {"persons": [str(person_id) for person_id in persons], "purposes": list(purposes)}
    await tx.execute(_SET_STATE, values | {"state": str(state)})


_STANDING = sa.text("""
    SELECT person_id, purpose, version,
        CAST(extract(epoch FROM clock_timestamp() - changed_at) AS float) AS age,
        (SELECT count(*) FROM permit
         WHERE permit.person_id = consent_state.person_id AND returned_at IS NULL) AS unreturned
    FROM consent_state
    WHERE person_id = ANY(CAST(:persons AS uuid[])) AND purpose = ANY(CAST(:purposes AS text[]))
""").columns(
    person_id=sa.Uuid,
    purpose=sa.Text,
    version=sa.BigInteger,
    age=sa.Float,
    unreturned=sa.BigInteger,
)


async def standings(
    tx: AsyncConnection, persons: Iterable[UUID], purposes: Iterable[str]
) -> dict[UUID, Standing]:
    """Look at versions and permits; the caller holds the persons' rows by a statement before.

    In one statement with the lock, the count would be as old as the wait for the lock.
    """
    values = {"persons": [str(person_id) for person_id in persons], "purposes": list(purposes)}
    by_person: dict[UUID, list[sa.Row[Any]]] = {}
    for row in await tx.execute(_STANDING, values):
        by_person.setdefault(row.person_id, []).append(row)
    return {
        person_id: Standing(
            versions={row.purpose: row.version for row in rows},
            unreturned=rows[0].unreturned,
            withdrawn_for=min(row.age for row in rows),
        )
        for person_id, rows in by_person.items()
    }


async def standing(tx: AsyncConnection, person_id: UUID, purposes: Iterable[str]) -> Standing:
    return (await standings(tx, [person_id], purposes))[person_id]


_OPEN = sa.text("""
    INSERT INTO permit (message, attempt, person_id, granted_at)
    VALUES (:message, :attempt, :person, clock_timestamp())
    ON CONFLICT (message, attempt) DO NOTHING
""").bindparams(sa.bindparam("message", type_=sa.Uuid), sa.bindparam("person", type_=sa.Uuid))


# One attempt has one address: a permit of somebody else's is none.
_LOOK = (
    sa.text("""
    SELECT CAST(extract(epoch FROM clock_timestamp() - granted_at) AS float) AS age,
        returned_at IS NOT NULL OR person_id IS DISTINCT FROM :person AS closed
    FROM permit WHERE message = :message AND attempt = :attempt
""")
    .bindparams(sa.bindparam("message", type_=sa.Uuid), sa.bindparam("person", type_=sa.Uuid))
    .columns(age=sa.Float, closed=sa.Boolean)
)


async def open_permit(tx: AsyncConnection, person_id: UUID, message: UUID, attempt: int) -> Permit:
    """Record a permit for this attempt unless there is one, and return the one there is."""
    values = {"message": message, "attempt": attempt, "person": person_id}
    if (await tx.execute(_OPEN, values)).rowcount:
        return Permit(age=0, returned=False)
    # A statement of its own: it sees the twin on whose commit the insert has waited.
    row = (await tx.execute(_LOOK, values)).one()
    return Permit(age=row.age or 0.0, returned=row.closed)


_RETURN = sa.text("""
    INSERT INTO permit (message, attempt, returned_at)
    VALUES (:message, :attempt, clock_timestamp())
    ON CONFLICT (message, attempt) DO UPDATE
        SET returned_at = coalesce(permit.returned_at, excluded.returned_at)
""").bindparams(sa.bindparam("message", type_=sa.Uuid))


async def return_permit(tx: AsyncConnection, message: UUID, attempt: int) -> None:
    """Close it for good; a return that overtakes its request leaves a tombstone."""
    await tx.execute(_RETURN, {"message": message, "attempt": attempt})


_SUPPRESS = sa.text("""
    WITH waiting AS (
        DELETE FROM opt_in
        WHERE person_id = ANY(CAST(:persons AS uuid[])) AND purpose = ANY(CAST(:purposes AS text[]))
    )
    INSERT INTO suppression AS mine (address_hash, purpose, keep_until)
    SELECT hash, purpose, now() + make_interval(days => :days)
    FROM unnest(CAST(:hashes AS bytea[])) AS hash, unnest(CAST(:purposes AS text[])) AS purpose
    ON CONFLICT (address_hash, purpose) DO UPDATE SET keep_until = excluded.keep_until
""")


async def suppress(
    tx: AsyncConnection, address_hashes: Mapping[UUID, bytes], purposes: Iterable[str], days: int
) -> None:
    """Keep these persons' addresses out, and void the links by which they were to come back."""
    values = {
        "persons": [str(person_id) for person_id in address_hashes],
        "hashes": list(address_hashes.values()),
        "purposes": list(purposes),
        "days": days,
    }
    await tx.execute(_SUPPRESS, values)


async def is_suppressed(tx: AsyncConnection, address_hash: bytes, purpose: str) -> bool:
    return bool(
        await tx.scalar(
            sa.select(
                sa.exists().where(
                    suppression.c.address_hash == address_hash,
                    suppression.c.purpose == purpose,
                    suppression.c.keep_until > sa.func.now(),
                )
            )
        )
    )


async def lift_suppression(tx: AsyncConnection, address_hash: bytes, purpose: str) -> None:
    await tx.execute(
        sa.delete(suppression).where(
            suppression.c.address_hash == address_hash, suppression.c.purpose == purpose
        )
    )
