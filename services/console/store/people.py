"""People, their invitations, and what they log in with."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.rules import Ways
from services.console.store.tables import (
    api_key,
    invitation,
    login_failure,
    staff,
    staff_action,
    staff_credential,
)

PASSWORD, OIDC = "password", "oidc"
TOLD = ("staff.power", "staff.link", "staff.link-shown", "staff.factor-reset", "key.power")
"""Acts that *Start* shows (notices.py)."""


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def find(tx: AsyncConnection, **by: object) -> sa.Row[Any] | None:
    """:param by: `id` or `email`"""
    return (await tx.execute(sa.select(staff).filter_by(**by))).first()


async def by_identity(tx: AsyncConnection, issuer: str, subject: str) -> sa.Row[Any] | None:
    table = staff_credential.c
    found = await tx.execute(
        sa.select(staff)
        .join(staff_credential)
        .where(table.issuer == issuer, table.subject == subject)
        .with_for_update(read=True, of=staff_credential)
    )
    return found.first()


def _opens(ways: Ways) -> sa.ColumnElement[bool]:
    table = staff_credential.c
    oidc = table.issuer == ways.issuer
    return oidc | (table.kind == PASSWORD) if ways.passwords else oidc


async def listed(tx: AsyncConnection, ways: Ways) -> Sequence[sa.Row[Any]]:
    """Return everybody, with `joined`: whether they have what opens the door today."""
    own = staff_credential.c.staff_id == staff.c.id
    joined = sa.exists().where(own, _opens(ways)).label("joined")
    return (await tx.execute(sa.select(staff, joined).order_by(staff.c.name))).all()


async def add(tx: AsyncConnection, values: Mapping[str, Any]) -> None:
    await tx.execute(sa.insert(staff).values(**values))


async def change(tx: AsyncConnection, staff_id: UUID, **values: Any) -> None:
    await tx.execute(sa.update(staff).where(staff.c.id == staff_id).values(**values))


async def admins(tx: AsyncConnection) -> Sequence[sa.Row[Any]]:
    found = await tx.execute(
        sa.select(staff).where(staff.c.disabled_at.is_(None), staff.c.roles.contains(["admin"]))
    )
    return found.all()


async def other_admins(tx: AsyncConnection, staff_id: UUID, ways: Ways) -> bool:
    """Return whether somebody else can log in as admin."""
    found = await tx.execute(
        sa.select(1)
        .select_from(staff.join(staff_credential))
        .where(staff.c.id != staff_id, staff.c.disabled_at.is_(None))
        .where(staff.c.roles.contains(["admin"]), _opens(ways))
        .limit(1)
    )
    return found.first() is not None


async def add_invitation(
    tx: AsyncConnection, token: str, staff_id: UUID, expires_at: datetime
) -> None:
    """Add a link; those before it end."""
    await tx.execute(sa.delete(invitation).where(invitation.c.staff_id == staff_id))
    await tx.execute(
        sa.insert(invitation).values(
            token_sha256=digest(token), staff_id=staff_id, expires_at=expires_at
        )
    )


async def invited(tx: AsyncConnection, token: str) -> sa.Row[Any] | None:
    """Return the person of an unused link."""
    found = await tx.execute(
        sa.select(staff)
        .join(invitation)
        .where(invitation.c.token_sha256 == digest(token), invitation.c.used_at.is_(None))
        .where(invitation.c.expires_at > sa.func.now(), staff.c.disabled_at.is_(None))
    )
    return found.first()


async def use_invitation(tx: AsyncConnection, token: str) -> bool:
    """Return False if another use was first: the row's lock decides."""
    done: sa.CursorResult[Any] = await tx.execute(
        sa.update(invitation)
        .where(invitation.c.token_sha256 == digest(token), invitation.c.used_at.is_(None))
        .values(used_at=sa.func.now())
    )
    return done.rowcount == 1


async def use_invitation_of(tx: AsyncConnection, email: str) -> sa.Row[Any] | None:
    """Use the unused link of this address, if there is one, and return whose it is."""
    done: sa.Result[Any] = await tx.execute(
        sa.update(invitation)
        .where(invitation.c.staff_id == staff.c.id, invitation.c.used_at.is_(None))
        .where(invitation.c.expires_at > sa.func.now(), staff.c.disabled_at.is_(None))
        .where(staff.c.email == email)
        .values(used_at=sa.func.now())
        .returning(staff)
    )
    return done.first()


async def password_hash(tx: AsyncConnection, staff_id: UUID) -> str | None:
    own = sa.select(staff_credential.c.hash).filter_by(staff_id=staff_id, kind=PASSWORD)
    return (await tx.execute(own)).scalar_one_or_none()


async def set_credential(tx: AsyncConnection, staff_id: UUID, **values: str) -> None:
    """End what the person logged in with before: an invitation is how a stolen one is replaced.

    :param values: `kind` PASSWORD with `hash`, or OIDC with `issuer` and `subject`
    """
    await tx.execute(sa.delete(staff_credential).where(staff_credential.c.staff_id == staff_id))
    await tx.execute(sa.insert(staff_credential).values(staff_id=staff_id, **values))
    await change(tx, staff_id, proof_at=sa.func.now())


async def set_factor(
    tx: AsyncConnection, staff_id: UUID, sealed: bytes | None, step: int = 0,
    recovery: Sequence[bytes] = (),
) -> None:  # fmt: skip
    """:param sealed: None: there is none any more"""
    values = {"factor": sealed, "factor_step": step, "recovery": list(recovery)}
    await change(tx, staff_id, proof_at=sa.func.now(), **values)


async def use_code(
    tx: AsyncConnection, staff_id: UUID, step: int | None, recovery: bytes
) -> int | None:
    """Use the code of this step, or this recovery code: each once, as the row's lock decides.

    :returns: how many recovery codes are left; None: the code does not open
    """
    table = staff.c
    newer = sa.false() if step is None else table.factor_step < step
    done: sa.Result[Any] = await tx.execute(
        sa.update(staff)
        .where(table.id == staff_id, newer | table.recovery.any(recovery))
        .values(
            factor_step=sa.func.greatest(table.factor_step, step),
            recovery=sa.func.array_remove(table.recovery, recovery),
        )
        .returning(sa.func.cardinality(table.recovery))
    )
    return done.scalar_one_or_none()


async def block(tx: AsyncConnection, staff_id: UUID) -> None:
    """Disable a person, and delete what they log in with: only an invitation lets them in again."""
    await tx.execute(sa.delete(staff_credential).where(staff_credential.c.staff_id == staff_id))
    await set_factor(tx, staff_id, None)
    await change(tx, staff_id, disabled_at=sa.func.now())


async def end_invitations(tx: AsyncConnection) -> None:
    await tx.execute(sa.delete(invitation))


async def still_opens(tx: AsyncConnection, staff_id: UUID, hashed: str) -> bool:
    """Return whether an invitation has not replaced this password; until the commit none does."""
    own = sa.select(staff_credential.c.staff_id).filter_by(staff_id=staff_id, hash=hashed)
    return (await tx.execute(own.with_for_update())).first() is not None


async def rehash(tx: AsyncConnection, staff_id: UUID, fresh: str) -> None:
    own = sa.update(staff_credential).filter_by(staff_id=staff_id, kind=PASSWORD)
    await tx.execute(own.values(hash=fresh))


async def count_try(tx: AsyncConnection, *tried: str) -> int:
    """Count a try, before it is judged, and return how many failed before it.

    :param tried: an account, or an account and what else is counted on its own
    """
    statement = insert(login_failure).values(email_sha256=digest(" ".join(tried)), failures=1)
    more = {"failures": login_failure.c.failures + 1, "last_at": sa.func.now()}
    done: Any = await tx.execute(
        statement.on_conflict_do_update(index_elements=["email_sha256"], set_=more).returning(
            login_failure.c.failures
        )
    )
    failures: int = done.scalar_one()
    return failures - 1


async def forget_tries(tx: AsyncConnection, *tried: str) -> None:
    counted = login_failure.c.email_sha256 == digest(" ".join(tried))
    await tx.execute(sa.delete(login_failure).where(counted))


async def told(tx: AsyncConnection, staff_id: UUID, *, admin: bool) -> Sequence[sa.Row[Any]]:
    """Return what every admin is told of, of a week; and of a month what is about this person."""
    act, age = staff_action.c, sa.func.now() - staff_action.c.at
    person = sa.select(staff.c.name).where(sa.cast(staff.c.id, sa.Text) == act.object_ref)
    key = sa.select(api_key.c.name).where(api_key.c.id == act.object_ref)
    whom = sa.func.coalesce(person.scalar_subquery(), key.scalar_subquery()).label("whom")
    theirs = sa.literal(admin) & (age < sa.text("interval '7 days'"))
    mine = (act.object_ref == str(staff_id)) & (age < sa.text("interval '30 days'"))
    found = await tx.execute(
        sa.select(staff_action, whom)
        .where(act.action.in_(TOLD), theirs | mine)
        .order_by(act.at.desc())
        .limit(20)
    )
    return found.all()


async def standing(tx: AsyncConnection) -> dict[str, str]:
    """Return what gateways keep of people, so that it outlives this database: ids, and a digest of
    what each may do and logs in with.
    """
    found: dict[str, str] = {}
    for each in await tx.execute(sa.select(staff)):
        proved = each.proof_at and each.proof_at.timestamp()
        state = f"{sorted(each.roles)} {each.disabled_at is None} {proved}"
        found[str(each.id)] = digest(state).hex()
    return found


async def changed_since(tx: AsyncConnection, then: Mapping[str, str]) -> Mapping[str, str]:
    """Return names by id of who can enter, and was another before: by `standing`."""
    now = await standing(tx)
    enabled = sa.select(staff.c.id, staff.c.name).where(staff.c.disabled_at.is_(None))
    found = {str(id_): name for id_, name in await tx.execute(enabled)}
    return {id_: found[id_] for id_ in found if then.get(id_, now[id_]) != now[id_]}


async def erase(tx: AsyncConnection) -> None:
    """Erase who has been disabled for a year; see migration 0009."""
    await tx.execute(sa.select(sa.func.staff_erase()))


async def purge(tx: AsyncConnection) -> None:
    """Delete failures of the hour before, and links that ended a day ago."""
    hour, day = sa.text("interval '1 hour'"), sa.text("interval '1 day'")
    await tx.execute(sa.delete(login_failure).where(login_failure.c.last_at < sa.func.now() - hour))
    await tx.execute(sa.delete(invitation).where(invitation.c.expires_at < sa.func.now() - day))
