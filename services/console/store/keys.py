"""API keys and their digests."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.rules import Secret
from services.console.store.sql import run
from services.console.store.tables import api_key


async def add(tx: AsyncConnection, values: Mapping[str, Any]) -> None:
    await tx.execute(sa.insert(api_key).values(**values))


async def add_digest(tx: AsyncConnection, secret: Secret, added_in: int) -> None:
    new = {"sha256": secret.sha256, "key": secret.key_id}
    await run(tx, "add_digest", **new, version=added_in)


async def find(tx: AsyncConnection, key_id: str) -> Any:
    return (await run(tx, "find_key", key=key_id)).one_or_none()


async def end_digests(tx: AsyncConnection, key_id: str, until: datetime) -> None:
    """End the digests of a key then, or when they would end anyway."""
    await run(tx, "end_digests", key=key_id, at=until)


async def change(tx: AsyncConnection, key_id: str, **values: Any) -> None:
    await tx.execute(sa.update(api_key).where(api_key.c.id == key_id).values(**values))


async def listed(tx: AsyncConnection) -> list[Mapping[str, Any]]:
    """Return every key, including expired and revoked ones, newest first."""
    return [each._asdict() for each in await run(tx, "all_keys")]


async def in_force(tx: AsyncConnection) -> list[dict[str, Any]]:
    """Return the keys as the gateways get them."""
    keys: dict[str, dict[str, Any]] = {}
    for row in await run(tx, "keys_in_force"):
        key = keys.setdefault(
            row.id,
            {
                "id": row.id,
                "digests": [],
                "scopes": row.scopes,
                "limits": row.limits,
                "networks": row.networks,
                "expires_at": row.expires_at.isoformat(),
            },
        )
        until = row.until and row.until.isoformat()
        key["digests"].append({"sha256": row.sha256.hex(), "until": until})
    return list(keys.values())


async def not_held(tx: AsyncConnection, version: int, held: Iterable[bytes]) -> Sequence[str]:
    """Return the keys in force that a gateway of this version, which has these digests, refuses."""
    return (await run(tx, "keys_not_held", version=version, held=list(held))).scalars()


async def end_not_held(tx: AsyncConnection, version: int, held: Iterable[bytes]) -> None:
    """End those digests again, and revoke each key that has no other."""
    await run(tx, "end_not_held", version=version, held=list(held))
    await run(tx, "revoke_ended")


async def unknown_digests(tx: AsyncConnection, held: Iterable[bytes]) -> int:
    """Return how many of these digests belong to keys that this database does not have."""
    given = set(held)
    return len(given) - int((await run(tx, "known_digests", held=list(given))).scalar_one())
