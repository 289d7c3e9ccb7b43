"""API keys and their digests."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.console.rules import Secret
from services.console.store.tables import api_key, api_key_digest

_IN_FORCE = api_key.c.revoked_at.is_(None) & (api_key.c.expires_at > sa.func.now())
_UNENDED = api_key_digest.c.until.is_(None) | (api_key_digest.c.until > sa.func.now())


async def add(tx: AsyncConnection, values: Mapping[str, Any]) -> None:
    await tx.execute(sa.insert(api_key).values(**values))


async def add_digest(tx: AsyncConnection, secret: Secret, added_in: int) -> None:
    await tx.execute(
        sa.insert(api_key_digest).values(
            sha256=secret.sha256, key_id=secret.key_id, added_in=added_in
        )
    )


async def find(tx: AsyncConnection, key_id: str) -> sa.Row[Any] | None:
    return (await tx.execute(sa.select(api_key).where(api_key.c.id == key_id))).first()


async def end_digests(tx: AsyncConnection, key_id: str, until: datetime) -> None:
    """End the digests of a key then, or when they would end anyway."""
    await tx.execute(
        sa.update(api_key_digest)
        .where(api_key_digest.c.key_id == key_id, _UNENDED)
        .values(until=sa.func.least(api_key_digest.c.until, until))  # ignores NULL
    )


async def change(tx: AsyncConnection, key_id: str, **values: Any) -> None:
    await tx.execute(sa.update(api_key).where(api_key.c.id == key_id).values(**values))


async def count_in_force(tx: AsyncConnection) -> int:
    return (await tx.execute(sa.select(sa.func.count()).where(_IN_FORCE))).scalar_one()


async def listed(tx: AsyncConnection) -> list[Mapping[str, Any]]:
    """Return every key, also what is expired or revoked, the newest first."""
    digests = (
        sa.select(
            sa.func.array_agg(
                sa.func.coalesce(api_key_digest.c.until, api_key.c.expires_at).label("until")
            )
        )
        .where(api_key_digest.c.key_id == api_key.c.id, _UNENDED)
        .scalar_subquery()
    )
    found = await tx.execute(
        sa.select(api_key, digests.label("ends")).order_by(api_key.c.created_at.desc())
    )
    return [dict(each) for each in found.mappings()]


async def in_force(tx: AsyncConnection) -> list[dict[str, Any]]:
    """Return the keys as the gateways get them."""
    digest = api_key_digest.c
    found = await tx.execute(
        sa.select(api_key, digest.sha256, digest.until)
        .join(api_key_digest, digest.key_id == api_key.c.id)
        .where(_IN_FORCE, _UNENDED)
        .order_by(api_key.c.id)
    )
    keys: dict[str, dict[str, Any]] = {}
    for row in found:
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
        key["digests"].append({"sha256": bytes(row.sha256).hex(), "until": until})
    return list(keys.values())


async def used(tx: AsyncConnection, key_id: str, at: datetime, calls: int) -> None:
    """Note calls with a key; `greatest` ignores NULL. An unknown key changes nothing."""
    await tx.execute(
        sa.update(api_key)
        .where(api_key.c.id == key_id)
        .values(
            last_used_at=sa.func.greatest(api_key.c.last_used_at, at),
            calls=api_key.c.calls + calls,
        )
    )


async def not_held(tx: AsyncConnection, version: int, held: Iterable[bytes]) -> Sequence[str]:
    """Return the keys in force that a gateway of this version, which has these digests, refuses.

    Each was known there (`added_in`), so it was revoked, or its digest ended, before that version.
    """
    found = await tx.execute(
        sa.select(api_key_digest.c.key_id.distinct())
        .join(api_key, api_key.c.id == api_key_digest.c.key_id)
        .where(_IN_FORCE, _UNENDED, api_key_digest.c.added_in <= version)
        .where(api_key_digest.c.sha256.not_in(list(held)))
    )
    return list(found.scalars())


async def end_not_held(tx: AsyncConnection, version: int, held: Iterable[bytes]) -> None:
    """End those digests again, and revoke each key that has no other."""
    digest = api_key_digest.c
    await tx.execute(
        sa.update(api_key_digest)
        .where(_UNENDED, digest.added_in <= version, digest.sha256.not_in(list(held)))
        .values(until=sa.func.now())
    )
    left = sa.select(1).where(digest.key_id == api_key.c.id, _UNENDED)
    await tx.execute(
        sa.update(api_key)
        .where(api_key.c.revoked_at.is_(None), ~left.exists())
        .values(revoked_at=sa.func.now())
    )


async def unknown_digests(tx: AsyncConnection, held: Iterable[bytes]) -> int:
    """Return how many of these digests belong to keys that this database does not have."""
    given = set(held)
    found = await tx.execute(
        sa.select(sa.func.count()).where(api_key_digest.c.sha256.in_(list(given)))
    )
    return len(given) - found.scalar_one()
