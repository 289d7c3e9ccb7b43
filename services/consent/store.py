"""The tables of consent, one function per question or change; the caller owns the transaction."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import inbox, outbox
from services.consent.consent import (
    LINK_MAILS_A_DAY,
    Action,
    ErasureStatus,
    LinkMail,
    Permit,
    Standing,
    State,
)
from services.consent.vault import PersonKey, Vault, WrappedKey

metadata = sa.MetaData()
_timestamptz = sa.DateTime(timezone=True)


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


person = sa.Table(
    "person",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("address_hash", sa.LargeBinary),
    sa.Column("master_key_id", sa.Text),
    sa.Column("wrapped_key", sa.LargeBinary),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("erased_at", _timestamptz),
    sa.UniqueConstraint("address_hash", name="person_address_hash"),
    sa.CheckConstraint(
        "num_nonnulls(address_hash, master_key_id, wrapped_key)"
        " = CASE WHEN erased_at IS NULL THEN 3 ELSE 0 END",
        name="person_known_or_erased",
    ),
)

consent_state = sa.Table(
    "consent_state",
    metadata,
    sa.Column("person_id", sa.ForeignKey(person.c.id), primary_key=True),
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("changed_at", _timestamptz, nullable=False),
    sa.CheckConstraint(_one_of("state", State), name="consent_state_known"),
)

permit = sa.Table(
    "permit",
    metadata,
    sa.Column("message", sa.Uuid, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("person_id", sa.ForeignKey(person.c.id)),
    sa.Column("granted_at", _timestamptz),
    sa.Column("returned_at", _timestamptz),
    sa.CheckConstraint(
        "num_nonnulls(person_id, granted_at) = 2"
        " OR (num_nonnulls(person_id, granted_at) = 0 AND returned_at IS NOT NULL)",
        name="permit_granted_or_tombstone",
    ),
    sa.Index("permit_unreturned", "person_id", postgresql_where=sa.text("returned_at IS NULL")),
    sa.Index("permit_age", sa.text("coalesce(granted_at, returned_at)")),
)

suppression = sa.Table(
    "suppression",
    metadata,
    sa.Column("address_hash", sa.LargeBinary, primary_key=True),
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("keep_until", _timestamptz, nullable=False),
    sa.Index("suppression_keep_until", "keep_until"),
)

erasure = sa.Table(
    "erasure",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("person_id", sa.ForeignKey(person.c.id)),
    sa.Column("address_hash", sa.LargeBinary),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("requested_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Column("confirmed_at", _timestamptz),
    sa.Column("finished_at", _timestamptz),
    sa.Column("master_key_id", sa.Text),
    sa.Column("sealed_address", sa.LargeBinary),
    sa.Column("ordered_at", _timestamptz),
    sa.UniqueConstraint("person_id", name="erasure_person"),
    sa.CheckConstraint(_one_of("status", ErasureStatus), name="erasure_status_known"),
    sa.CheckConstraint(
        "(status <> 'awaiting_confirmation') = (confirmed_at IS NOT NULL)"
        " AND (status = 'done') = (finished_at IS NOT NULL)",
        name="erasure_dated",
    ),
    sa.CheckConstraint(
        "(status = 'awaiting_confirmation') = (person_id IS NOT NULL)",
        name="erasure_unlinked_once_confirmed",
    ),
    sa.Index("erasure_address", "address_hash", "requested_at"),
    sa.CheckConstraint(
        "num_nonnulls(master_key_id, sealed_address) = 0"
        " OR (num_nonnulls(master_key_id, sealed_address, ordered_at) = 3"
        " AND status = 'in_progress')",
        name="erasure_sealed_while_in_progress",
    ),
    sa.Index("erasure_finished", "finished_at"),
    sa.Index(
        "erasure_in_progress", "requested_at", postgresql_where=sa.text("status = 'in_progress'")
    ),
)

erasure_receipt = sa.Table(
    "erasure_receipt",
    metadata,
    sa.Column("erasure_id", sa.ForeignKey(erasure.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("received_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
)

# An agreement that counts once it is confirmed by the link that was mailed; encrypted.
opt_in = sa.Table(
    "opt_in",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("person_id", sa.ForeignKey(person.c.id), nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("agreement", sa.LargeBinary, nullable=False),
    sa.Column("asked_at", _timestamptz, nullable=False, server_default=sa.text("now()")),
    sa.Index("opt_in_person", "person_id"),
    sa.Index("opt_in_asked_at", "asked_at"),
)

link_mail = sa.Table(
    "link_mail",
    metadata,
    sa.Column("address_hash", sa.LargeBinary, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("first_at", _timestamptz, nullable=False),
    sa.Column("last_at", _timestamptz, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.CheckConstraint(_one_of("kind", LinkMail), name="link_mail_kind_known"),
    sa.Index("link_mail_last_at", "last_at"),
)

# Append-only; its trigger sets id, timestamp and hash (migration 0001, trail.py).
consent_audit_log = sa.Table(
    "consent_audit_log",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, server_default=sa.FetchedValue()),
    sa.Column("person_id", sa.ForeignKey(person.c.id), nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("timestamp", _timestamptz, nullable=False, server_default=sa.FetchedValue()),
    sa.Column("email", sa.LargeBinary, nullable=False),
    sa.Column("ip_address", sa.LargeBinary),
    sa.Column("user_agent", sa.LargeBinary),
    sa.Column("reason", sa.LargeBinary),
    sa.Column("session_id", sa.LargeBinary),
    sa.Column("evidence", sa.LargeBinary),
    sa.Column("hash", sa.LargeBinary, nullable=False, server_default=sa.FetchedValue()),
    sa.CheckConstraint(_one_of("action", Action), name="consent_audit_log_action_known"),
    sa.Index("consent_audit_log_person_timestamp", "person_id", "timestamp"),
    sa.Index("consent_audit_log_timestamp", "timestamp"),
)

# The lock of whoever appends; the runtime role cannot even read it.
trail_head = sa.Table(
    "trail_head",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.CheckConstraint("single", name="trail_head_single"),
)

outbox.table(metadata)
inbox.table(metadata)


@dataclass(frozen=True, slots=True)
class Person:
    id: UUID
    wrapped_key: WrappedKey

    def key(self, vault: Vault) -> PersonKey:
        return vault.unwrap(self.id, self.wrapped_key)


class Lock:
    """How a transaction holds the person's row (protocol B, step 3)."""

    PERMIT: Final = "FOR SHARE"
    CHANGE: Final = "FOR UPDATE"
    NONE: Final = ""


_FIND = "SELECT id, master_key_id, wrapped_key FROM person WHERE address_hash = :hash "


async def find(
    tx: AsyncConnection, vault: Vault, address: str, lock: str = Lock.NONE
) -> Person | None:
    statement = sa.text(_FIND + lock).columns(
        id=sa.Uuid, master_key_id=sa.Text, wrapped_key=sa.LargeBinary
    )
    found = await tx.execute(statement, {"hash": vault.address_hash(address)})
    row = found.one_or_none()
    if row is None:
        return None
    return Person(row.id, WrappedKey(row.master_key_id, row.wrapped_key))


_ENTER = sa.text("""
    INSERT INTO person (id, address_hash, master_key_id, wrapped_key)
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:masters AS text[]),
        CAST(:wrapped AS bytea[])
    )
    ON CONFLICT DO NOTHING
""")
# In the order of the hashes, as the insert: two batches cannot wait for each other.
_FIND_ALL = """
    SELECT id, address_hash, master_key_id, wrapped_key FROM person
    WHERE address_hash = ANY(CAST(:hashes AS bytea[])) ORDER BY address_hash
"""


async def enter_all(
    tx: AsyncConnection, vault: Vault, addresses: Iterable[str], lock: str
) -> dict[str, Person]:
    """Lock these persons' rows, made first for the addresses that are new.

    The row must exist before anything is decided: a lock on nothing holds nobody back. A known
    address takes the same steps, so that time does not tell it from a new one.
    """
    asked = sorted((vault.address_hash(address), address) for address in set(addresses))
    hashes = [address_hash for address_hash, _ in asked]
    while True:
        ids = [uuid4() for _ in asked]
        wrapped = [vault.new_key(person_id)[1] for person_id in ids]
        await tx.execute(
            _ENTER,
            {
                "ids": [str(person_id) for person_id in ids],
                "hashes": hashes,
                "masters": [each.master_key_id for each in wrapped],
                "wrapped": [each.wrapped for each in wrapped],
            },
        )
        found = await tx.execute(
            sa.text(_FIND_ALL + lock).columns(
                id=sa.Uuid,
                address_hash=sa.LargeBinary,
                master_key_id=sa.Text,
                wrapped_key=sa.LargeBinary,
            ),
            {"hashes": hashes},
        )
        rows = {row.address_hash: row for row in found}
        if len(rows) == len(asked):
            return {
                address: Person(row.id, WrappedKey(row.master_key_id, row.wrapped_key))
                for address_hash, address in asked
                for row in (rows[address_hash],)
            }
        # One was erased between the two statements: begin a new person.


async def enter(tx: AsyncConnection, vault: Vault, address: str, lock: str) -> Person:
    return (await enter_all(tx, vault, [address], lock))[address]


# In the order of the hashes, as `enter_all` locks them.
_WRAPPED_BEFORE = sa.text("""
    SELECT id, address_hash, master_key_id, wrapped_key FROM person
    WHERE address_hash > :after AND master_key_id <> :current
    ORDER BY address_hash LIMIT :batch FOR UPDATE
""").columns(
    id=sa.Uuid, address_hash=sa.LargeBinary, master_key_id=sa.Text, wrapped_key=sa.LargeBinary
)
_REWRAP = sa.text("""
    UPDATE person SET master_key_id = :current, wrapped_key = new.wrapped
    FROM unnest(CAST(:ids AS uuid[]), CAST(:wrapped AS bytea[])) AS new (id, wrapped)
    WHERE person.id = new.id
""")


async def rewrap(
    tx: AsyncConnection, vault: Vault, after: bytes, batch: int
) -> tuple[int, bytes | None]:
    """Wrap some persons' keys by the current master key.

    :param after: the address hash up to which that was done
    :returns: how many, and where to go on; None at the end
    :raises KeyError: one is wrapped by a master key that is not configured
    """
    values = {"after": after, "current": vault.current, "batch": batch}
    rows = (await tx.execute(_WRAPPED_BEFORE, values)).all()
    if not rows:
        return 0, None
    keys = [vault.rewrap(row.id, WrappedKey(row.master_key_id, row.wrapped_key)) for row in rows]
    await tx.execute(
        _REWRAP,
        {
            "current": vault.current,
            "ids": [str(row.id) for row in rows],
            "wrapped": [key.wrapped for key in keys],
        },
    )
    return len(rows), rows[-1].address_hash


async def state_of(tx: AsyncConnection, person_id: UUID, purpose: str) -> State | None:
    state = await tx.scalar(
        sa.select(consent_state.c.state).where(
            consent_state.c.person_id == person_id, consent_state.c.purpose == purpose
        )
    )
    return state and State(state)


async def states(tx: AsyncConnection, address_hash: bytes) -> dict[str, State]:
    """Read the states by purpose; none for an unknown address, at the same cost."""
    rows = await tx.execute(
        sa.select(consent_state.c.purpose, consent_state.c.state)
        .join(person)
        .where(person.c.address_hash == address_hash)
    )
    return {row.purpose: State(row.state) for row in rows}


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


async def lock(tx: AsyncConnection, person_id: UUID) -> None:
    await tx.execute(sa.select(person.c.id).where(person.c.id == person_id).with_for_update())


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


@dataclass(frozen=True, slots=True)
class Erasure:
    id: UUID
    status: ErasureStatus
    requested_at: datetime
    confirmed_at: datetime | None
    finished_at: datetime | None
    due_at: datetime
    """By then it must be carried out (Art. 12(3) GDPR): a month after the request."""
    receipts: frozenset[str]


_REQUEST_ERASURE = (
    sa.text("""
    INSERT INTO erasure AS mine (id, person_id, address_hash, status)
    VALUES (:id, :person, :hash, 'awaiting_confirmation')
    ON CONFLICT (person_id) DO UPDATE SET requested_at = CASE
        WHEN mine.requested_at < now() - interval '7 days' THEN now() ELSE mine.requested_at END
    RETURNING id
""")
    .bindparams(
        sa.bindparam("id", type_=sa.Uuid),
        sa.bindparam("person", type_=sa.Uuid),
        sa.bindparam("hash", type_=sa.LargeBinary),
    )
    .columns(id=sa.Uuid)
)


async def request_erasure(tx: AsyncConnection, person_id: UUID, address_hash: bytes) -> UUID:
    """Note that erasure was asked for; asking twice is asking once.

    One that was never confirmed lapses after a week, the longest that a link may be good for: the
    month in which it must be carried out then runs from the newer request.

    :param address_hash: the suppression list's, by which the request is found once it is granted
    """
    values = {"id": uuid4(), "person": person_id, "hash": address_hash}
    erasure_id: UUID = (await tx.execute(_REQUEST_ERASURE, values)).scalar_one()
    return erasure_id


_LINK_MAIL = f"""
    INSERT INTO link_mail AS mine (address_hash, kind, first_at, last_at, count)
    VALUES (:hash, :kind, now(), now(), 1)
    ON CONFLICT (address_hash, kind) DO UPDATE SET
        count = CASE WHEN mine.first_at > now() - interval '1 day' THEN mine.count + 1 ELSE 1 END,
        first_at = CASE WHEN mine.first_at > now() - interval '1 day' THEN mine.first_at
            ELSE now() END,
        last_at = now()
    WHERE mine.last_at <= now() - interval '1 hour'
        AND (mine.count < {LINK_MAILS_A_DAY} OR mine.first_at <= now() - interval '1 day')
    RETURNING 1 AS noted
"""
_MAY_MAIL = sa.text(_LINK_MAIL).bindparams(sa.bindparam("hash", type_=sa.LargeBinary))


async def may_mail(tx: AsyncConnection, address_hash: bytes, kind: LinkMail) -> bool:
    """Note that a link is mailed now; False when the address has had its share of this kind.

    One an hour and three a day, counted by kind, so that whoever asks for the one kind in
    somebody's name cannot keep the other from them. The row decides: any number of requests at
    once, at any number of processes, make one mail.
    """
    noted = await tx.execute(_MAY_MAIL, {"hash": address_hash, "kind": str(kind)})
    return noted.one_or_none() is not None


_AWAIT_OPT_IN = sa.text(f"""
    WITH mailed AS ({_LINK_MAIL})
    INSERT INTO opt_in (id, person_id, purpose, agreement)
    SELECT :id, :person, :purpose, :agreement FROM mailed
""").bindparams(
    sa.bindparam("hash", type_=sa.LargeBinary),
    sa.bindparam("id", type_=sa.Uuid),
    sa.bindparam("person", type_=sa.Uuid),
    sa.bindparam("agreement", type_=sa.LargeBinary),
)


async def await_opt_in(
    tx: AsyncConnection,
    opt_in_id: UUID,
    person_id: UUID,
    purpose: str,
    agreement: bytes | None,
    address_hash: bytes,
) -> bool:
    """Keep an agreement for its confirmation, if a link may be mailed now (`may_mail`)."""
    kept = await tx.execute(
        _AWAIT_OPT_IN,
        {
            "hash": address_hash,
            "kind": str(LinkMail.OPT_IN),
            "id": opt_in_id,
            "person": person_id,
            "purpose": purpose,
            "agreement": agreement,
        },
    )
    return kept.rowcount == 1


async def waiting_opt_in(
    tx: AsyncConnection, opt_in_id: UUID, person_id: UUID, purpose: str
) -> bytes | None:
    """Return the agreement that this link confirms; None once it was used or voided."""
    agreement: bytes | None = await tx.scalar(
        sa.select(opt_in.c.agreement).where(
            opt_in.c.id == opt_in_id,
            opt_in.c.person_id == person_id,
            opt_in.c.purpose == purpose,
        )
    )
    return agreement


async def use_opt_in(tx: AsyncConnection, opt_in_id: UUID) -> None:
    await tx.execute(sa.delete(opt_in).where(opt_in.c.id == opt_in_id))


async def awaits_confirmation(tx: AsyncConnection, erasure_id: UUID, person_id: UUID) -> bool:
    """Say whether this request is this person's, and still open."""
    found = await tx.scalar(sa.select(erasure.c.person_id).where(erasure.c.id == erasure_id))
    return bool(found == person_id)


_DUE = (erasure.c.requested_at + sa.text("interval '1 month'")).label("due_at")


async def find_erasure(tx: AsyncConnection, address_hash: bytes) -> Erasure | None:
    """Return an address's erasure: one under way, else the latest that was asked for."""
    found = await tx.execute(
        sa.select(erasure, _DUE)
        .where(erasure.c.address_hash == address_hash)
        .order_by(
            (erasure.c.status == ErasureStatus.IN_PROGRESS).desc(), erasure.c.requested_at.desc()
        )
        .limit(1)
    )
    row = found.one_or_none()
    if row is None:
        return None
    receipts = await tx.execute(
        sa.select(erasure_receipt.c.service).where(erasure_receipt.c.erasure_id == row.id)
    )
    return Erasure(
        row.id,
        ErasureStatus(row.status),
        row.requested_at,
        row.confirmed_at,
        row.finished_at,
        row.due_at,
        frozenset(receipts.scalars()),
    )


async def forget(tx: AsyncConnection, person_id: UUID) -> None:
    """Forget who this is: without hash and key the rows that stay are nobody's."""
    await tx.execute(
        sa.update(person)
        .where(person.c.id == person_id)
        .values(address_hash=None, master_key_id=None, wrapped_key=None, erased_at=sa.func.now())
    )
    await tx.execute(sa.delete(opt_in).where(opt_in.c.person_id == person_id))


async def destroy(tx: AsyncConnection, person_id: UUID) -> UUID:
    """Forget a person whose erasure was asked for.

    :returns: the id of that erasure
    """
    await forget(tx, person_id)
    confirmed = await tx.execute(
        sa.update(erasure)
        .where(erasure.c.person_id == person_id)
        .values(status=ErasureStatus.IN_PROGRESS, confirmed_at=sa.func.now(), person_id=sa.null())
        .returning(erasure.c.id)
    )
    erasure_id: UUID = confirmed.scalar_one()
    return erasure_id


async def held(
    tx: AsyncConnection, person_id: UUID | None, address_hash: bytes
) -> dict[str, list[dict[str, Any]]]:
    """Read what is held on a person beside the trail, for an export, by kind.

    :param address_hash: the suppression list's: what it finds may outlive the person
    """
    questions = {
        "states": sa.select(
            consent_state.c.purpose,
            consent_state.c.state,
            consent_state.c.version,
            consent_state.c.changed_at,
        ).where(consent_state.c.person_id == person_id),
        "permits": sa.select(
            permit.c.message, permit.c.attempt, permit.c.granted_at, permit.c.returned_at
        ).where(permit.c.person_id == person_id),
        "suppressions": sa.select(
            suppression.c.purpose, suppression.c.created_at, suppression.c.keep_until
        ).where(suppression.c.address_hash == address_hash),
        "link_mails": sa.select(
            link_mail.c.kind, link_mail.c.first_at, link_mail.c.last_at, link_mail.c.count
        ).where(link_mail.c.address_hash == address_hash),
        "erasures": sa.select(
            erasure.c.status,
            erasure.c.requested_at,
            erasure.c.confirmed_at,
            erasure.c.finished_at,
        ).where(erasure.c.address_hash == address_hash),
    }
    found = {}
    for kind, question in questions.items():
        rows = (await tx.execute(question)).mappings()
        found[kind] = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


async def waiting_agreements(tx: AsyncConnection, person_id: UUID) -> list[tuple[datetime, bytes]]:
    """Read the agreements that wait for their confirmation, sealed by the person's key."""
    rows = await tx.execute(
        sa.select(opt_in.c.asked_at, opt_in.c.agreement).where(opt_in.c.person_id == person_id)
    )
    return [(row.asked_at, row.agreement) for row in rows]


async def known(tx: AsyncConnection, persons: Iterable[UUID]) -> dict[UUID, bool]:
    """Say of those of whom there is a row, whether it still leads to somebody."""
    rows = await tx.execute(
        sa.text(
            "SELECT id, erased_at IS NULL AS alive FROM person WHERE id = ANY(CAST(:ids AS uuid[]))"
        ).columns(id=sa.Uuid, alive=sa.Boolean),
        {"ids": [str(person_id) for person_id in persons]},
    )
    return {row.id: row.alive for row in rows}


async def person_of(tx: AsyncConnection, person_id: UUID) -> Person | None:
    """Find a person who was not erased by id."""
    found = await tx.execute(
        sa.select(person).where(person.c.id == person_id, person.c.erased_at.is_(None))
    )
    row = found.one_or_none()
    if row is None:
        return None
    return Person(row.id, WrappedKey(row.master_key_id, row.wrapped_key))


async def erased_elsewhere(
    tx: AsyncConnection,
    person_id: UUID,
    erasure_id: UUID,
    address_hash: bytes,
    at: datetime,
    *,
    under_way: bool,
) -> None:
    """Note an erasure that this database has not seen, as it would stand here if it had.

    :param under_way: another service holds the address, and has to erase it
    """
    await tx.execute(pg.insert(person).values(id=person_id, erased_at=at).on_conflict_do_nothing())
    await tx.execute(
        pg.insert(erasure)
        .values(
            id=erasure_id,
            address_hash=address_hash,
            status=ErasureStatus.IN_PROGRESS if under_way else ErasureStatus.DONE,
            requested_at=at,
            confirmed_at=at,
            finished_at=None if under_way else sa.func.now(),
        )
        .on_conflict_do_nothing()
    )


async def receive(
    tx: AsyncConnection, erasure_id: UUID, service: str, holders: Iterable[str]
) -> bool:
    """Note that a service has erased what it held.

    :returns: whether that was the last one
    """
    # Two receipts at once would each not see the other's.
    locked = await tx.execute(
        sa.select(erasure.c.id).where(erasure.c.id == erasure_id).with_for_update()
    )
    if locked.one_or_none() is None:
        return False
    await tx.execute(
        pg.insert(erasure_receipt)
        .values(erasure_id=erasure_id, service=service)
        .on_conflict_do_nothing()
    )
    received = await tx.execute(
        sa.select(erasure_receipt.c.service).where(erasure_receipt.c.erasure_id == erasure_id)
    )
    if not set(holders) <= set(received.scalars()):
        return False
    done = await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id == erasure_id, erasure.c.status == ErasureStatus.IN_PROGRESS)
        .values(
            status=ErasureStatus.DONE,
            finished_at=sa.func.now(),
            master_key_id=sa.null(),
            sealed_address=sa.null(),
        )
    )
    return done.rowcount == 1


async def erased_since(tx: AsyncConnection, address_hash: bytes, at: datetime) -> bool:
    """Say whether this address was erased at that time or later."""
    erased = sa.exists().where(erasure.c.address_hash == address_hash, erasure.c.confirmed_at >= at)
    return bool(await tx.scalar(sa.select(erased)))


async def seal_order(tx: AsyncConnection, erasure_id: UUID, sealed: WrappedKey) -> None:
    """Keep the address of an erasure under way, to order it again where no receipt comes."""
    await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id == erasure_id)
        .values(
            master_key_id=sealed.master_key_id,
            sealed_address=sealed.wrapped,
            ordered_at=sa.func.now(),
        )
    )


@dataclass(frozen=True, slots=True)
class Order:
    erasure_id: UUID
    sealed: WrappedKey
    receipts: frozenset[str]


_UNANSWERED = sa.text("""
    UPDATE erasure SET ordered_at = now() WHERE id IN (
        SELECT id FROM erasure
        WHERE status = 'in_progress' AND sealed_address IS NOT NULL
            AND ordered_at <= now() - make_interval(secs => :seconds)
        ORDER BY requested_at LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    RETURNING id, master_key_id, sealed_address, ARRAY(
        SELECT service FROM erasure_receipt WHERE erasure_id = erasure.id) AS receipts
""").columns(id=sa.Uuid, master_key_id=sa.Text, sealed_address=sa.LargeBinary)


async def unanswered(tx: AsyncConnection, seconds: float, batch: int) -> list[Order]:
    """Take the orders that were given so long ago and are not carried out by everybody."""
    rows = await tx.execute(_UNANSWERED, {"seconds": seconds, "batch": batch})
    return [
        Order(row.id, WrappedKey(row.master_key_id, row.sealed_address), frozenset(row.receipts))
        for row in rows
    ]


async def sealed_before(tx: AsyncConnection, current: str) -> list[Order]:
    """Lock orders that are sealed by another master key than this."""
    rows = await tx.execute(
        sa.select(erasure.c.id, erasure.c.master_key_id, erasure.c.sealed_address)
        .where(erasure.c.status == ErasureStatus.IN_PROGRESS, erasure.c.master_key_id != current)
        .with_for_update()
    )
    return [
        Order(row.id, WrappedKey(row.master_key_id, row.sealed_address), frozenset())
        for row in rows
    ]


async def reseal(tx: AsyncConnection, erasure_id: UUID, sealed: WrappedKey) -> None:
    await tx.execute(
        sa.update(erasure)
        .where(erasure.c.id == erasure_id)
        .values(master_key_id=sealed.master_key_id, sealed_address=sealed.wrapped)
    )


async def open_erasures(tx: AsyncConnection) -> tuple[int, float]:
    """Count the erasures under way.

    :returns: also how many days the first that is due has left; infinite when there is none
    """
    counted = await tx.execute(
        sa.select(
            sa.func.count(),
            sa.cast(sa.func.extract("epoch", sa.func.min(_DUE) - sa.func.now()), sa.Float),
        ).where(erasure.c.status == ErasureStatus.IN_PROGRESS)
    )
    count, seconds = counted.one()
    return count, math.inf if seconds is None else seconds / 86_400


PERMITS_KEPT_DAYS: Final = 30
"""A request lives seconds in the broker and an alert three days: no tombstone is missed."""

_PURGE = (
    sa.text(f"""
    DELETE FROM permit WHERE (message, attempt) IN (
        SELECT message, attempt FROM permit
        WHERE coalesce(granted_at, returned_at) < now() - interval '{PERMITS_KEPT_DAYS} days'
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
    sa.text("""
    DELETE FROM suppression WHERE (address_hash, purpose) IN (
        SELECT address_hash, purpose FROM suppression WHERE keep_until < now()
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
    # Its hash of the address serves no purpose beyond the suppression's.
    sa.text("""
    DELETE FROM erasure WHERE id IN (
        SELECT id FROM erasure WHERE finished_at < now() - make_interval(days => :days)
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
    # Longer than the longest a link may be good for.
    sa.text("""
    DELETE FROM opt_in WHERE id IN (
        SELECT id FROM opt_in WHERE asked_at < now() - interval '31 days'
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
    sa.text("""
    DELETE FROM link_mail WHERE (address_hash, kind) IN (
        SELECT address_hash, kind FROM link_mail WHERE last_at < now() - interval '1 day'
        LIMIT :batch FOR UPDATE SKIP LOCKED
    )
"""),
)


async def purge(tx: AsyncConnection, erasures_kept_days: int, batch: int = 1_000) -> int:
    """Delete some of what has had its time; 0 when none is."""
    values = {"batch": batch, "days": erasures_kept_days}
    deleted = [await tx.execute(statement, values) for statement in _PURGE]
    return sum(result.rowcount for result in deleted)


async def outbox_length(tx: AsyncConnection) -> int:
    return int(await tx.scalar(sa.text("SELECT count(*) FROM outbox")) or 0)


async def idle(tx: AsyncConnection) -> None:
    """Ask nothing: the round trip that another answer to the same request would have taken."""
    await tx.execute(sa.text("SELECT 1"))
