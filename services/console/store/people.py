"""People, their invitations, and what they log in with."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.rules import Ways
from services.console.store.sql import run
from services.console.store.tables import staff, staff_credential

PASSWORD, OIDC = "password", "oidc"
TOLD = ("staff.power", "staff.link", "staff.link-shown", "staff.factor-reset", "key.power")
"""Acts that *Start* shows (notices.py)."""


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def find(tx: AsyncConnection, **by: object) -> Any:
    """:param by: `id` or `email`"""
    return (await run(tx, "find_person", **{"id": None, "email": None} | by)).one_or_none()


async def by_identity(tx: AsyncConnection, issuer: str, subject: str) -> Any:
    return (await run(tx, "by_identity", issuer=issuer, subject=subject)).one_or_none()


def _opens(ways: Ways) -> dict[str, Any]:
    return {"issuer": ways.issuer, "passwords": ways.passwords}


async def listed(tx: AsyncConnection, ways: Ways) -> Sequence[Any]:
    """Return everybody, with `joined`: whether they have a credential that counts today."""
    return await run(tx, "everybody", **_opens(ways))


async def add(tx: AsyncConnection, values: Mapping[str, Any]) -> None:
    await tx.execute(sa.insert(staff).values(**values))


async def change(tx: AsyncConnection, staff_id: UUID, **values: Any) -> None:
    await tx.execute(sa.update(staff).where(staff.c.id == staff_id).values(**values))


async def other_admins(tx: AsyncConnection, staff_id: UUID, ways: Ways) -> bool:
    """Return whether somebody else can log in as admin."""
    return bool((await run(tx, "other_admins", id=staff_id, **_opens(ways))).scalar())


async def add_invitation(
    tx: AsyncConnection, token: str, staff_id: UUID, expires_at: datetime
) -> None:
    """Add a link; those before it end."""
    await run(tx, "add_invitation", token=digest(token), id=staff_id, at=expires_at)


async def invited(tx: AsyncConnection, token: str) -> Any:
    """Return the person whom an unused link invites."""
    return (await run(tx, "invited", token=digest(token))).one_or_none()


async def use_invitation(tx: AsyncConnection, token: str) -> bool:
    """Return False if another use was first: the row's lock decides."""
    return (await run(tx, "use_invitation", token=digest(token))).rowcount == 1


async def use_invitation_of(tx: AsyncConnection, email: str) -> Any:
    """Use the unused link of this address, if there is one, and return whose it is."""
    return (await run(tx, "use_invitation_of", email=email)).one_or_none()


async def password_hash(tx: AsyncConnection, staff_id: UUID) -> str | None:
    found: str | None = (await run(tx, "password_hash", id=staff_id)).scalar()
    return found


async def set_credential(tx: AsyncConnection, staff_id: UUID, **values: str) -> None:
    """Replace the person's earlier credential: an invitation is how to replace a stolen one.

    :param values: `kind` PASSWORD with `hash`, or OIDC with `issuer` and `subject`
    """
    await run(tx, "end_credentials", id=staff_id)
    await tx.execute(sa.insert(staff_credential).values(staff_id=staff_id, **values))
    await change(tx, staff_id, proof_at=sa.func.now())


async def set_factor(
    tx: AsyncConnection, staff_id: UUID, sealed: bytes | None, step: int = 0,
    recovery: Sequence[bytes] = (),
) -> None:  # fmt: skip
    """:param sealed: None: there is none now"""
    values = {"factor": sealed, "factor_step": step, "recovery": list(recovery)}
    await change(tx, staff_id, proof_at=sa.func.now(), **values)


async def use_code(
    tx: AsyncConnection, staff_id: UUID, step: int | None, recovery: bytes
) -> int | None:
    """Use the code of this step, or this recovery code: each once, as the row's lock decides.

    :returns: how many recovery codes are left; None: the code does not open
    """
    left: int | None = (await run(tx, "use_code", id=staff_id, step=step, code=recovery)).scalar()
    return left


async def block(tx: AsyncConnection, staff_id: UUID) -> None:
    """Disable a person, and delete their credentials: only an invitation lets them in again."""
    await run(tx, "end_credentials", id=staff_id)
    await set_factor(tx, staff_id, None)
    await change(tx, staff_id, disabled_at=sa.func.now())


async def still_opens(tx: AsyncConnection, staff_id: UUID, hashed: str) -> bool:
    """Return whether an invitation has not replaced this password; until the commit none does."""
    return bool(await run(tx, "still_opens", id=staff_id, hashed=hashed))


async def count_try(tx: AsyncConnection, *tried: str) -> int:
    """Count a try, before it is judged, and return how many failed before it.

    :param tried: an account, or an account and what else is counted on its own
    """
    failures: int = (await run(tx, "count_try", tried=digest(" ".join(tried)))).scalar_one()
    return failures - 1


async def forget_tries(tx: AsyncConnection, *tried: str) -> None:
    await run(tx, "forget_tries", tried=digest(" ".join(tried)))


async def told(tx: AsyncConnection, staff_id: UUID, *, admin: bool) -> Sequence[Any]:
    """Return a week's notices to every admin, and a month's notices about this person."""
    return await run(tx, "told", acts=list(TOLD), admin=admin, id=staff_id)


async def standing(tx: AsyncConnection) -> dict[str, str]:
    """Return what gateways keep of people, so that it outlives this database: ids, and a digest of
    what each may do and logs in with.
    """
    found: dict[str, str] = {}
    for each in await run(tx, "person"):
        proved = each.proof_at and each.proof_at.timestamp()
        state = f"{sorted(each.roles)} {each.disabled_at is None} {proved}"
        found[str(each.id)] = digest(state).hex()
    return found


async def changed_since(tx: AsyncConnection, then: Mapping[str, str]) -> Mapping[str, str]:
    """Return names by id of people who can enter but differ from `standing`."""
    now = await standing(tx)
    enabled = [each for each in await run(tx, "person") if each.disabled_at is None]
    found = {str(each.id): each.name for each in enabled}
    return {id_: found[id_] for id_ in found if then.get(id_, now[id_]) != now[id_]}
