"""People, their invitations, and what they log in with."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.store.sql import run

PASSWORD, OIDC = "password", "oidc"
TOLD = ("staff.power", "staff.link", "staff.link-shown", "staff.factor-reset", "key.power")
"""Acts that *Start* shows (notices.py)."""


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def find(tx: AsyncConnection, **by: object) -> Any:
    """:param by: `id` or `email`"""
    return (await run(tx, "find_person", **{"id": None, "email": None} | by)).one_or_none()


async def set_credential(tx: AsyncConnection, staff_id: UUID, **values: str) -> None:
    """Replace the person's earlier credential: an invitation is how to replace a stolen one.

    :param values: `kind` PASSWORD with `hash`, or OIDC with `issuer` and `subject`
    """
    await run(tx, "end_credentials", id=staff_id)
    nothing = {"hash": None, "issuer": None, "subject": None}
    await run(tx, "add_credential", id=staff_id, **nothing | values)


async def set_factor(
    tx: AsyncConnection, staff_id: UUID, sealed: bytes | None, step: int = 0,
    recovery: Sequence[bytes] = (),
) -> None:  # fmt: skip
    """:param sealed: None: there is none now"""
    await run(tx, "set_factor", id=staff_id, factor=sealed, step=step, recovery=[*recovery])


async def block(tx: AsyncConnection, staff_id: UUID) -> None:
    """Disable a person, and delete their credentials: only an invitation lets them in again."""
    await run(tx, "end_credentials", id=staff_id)
    await set_factor(tx, staff_id, None)
    await run(tx, "block", id=staff_id)


async def count_try(tx: AsyncConnection, *tried: str) -> int:
    """Count a try, before it is judged, and return how many failed before it.

    :param tried: an account, or an account and what else is counted on its own
    """
    failures: int = (await run(tx, "count_try", tried=digest(" ".join(tried)))).scalar_one()
    return failures - 1


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
