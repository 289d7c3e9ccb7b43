"""The links that were sent to people, by the hash of their token."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.store.tables import alert_case, case_link

KEPT = timedelta(days=7)


async def add(
    tx: AsyncConnection, hash_: bytes, case_id: UUID, person: str, generation: int
) -> None:
    """Make a link valid for this long from now."""
    until = {"expires_at": sa.func.now() + KEPT}
    given = {"hash": hash_, "case_id": case_id, "person": person, "generation": generation}
    await tx.execute(
        insert(case_link)
        .values(given | until)
        .on_conflict_do_update(index_elements=["hash"], set_=until)
    )


async def find(tx: AsyncConnection, hash_: bytes) -> Any | None:
    """Return the case of a link that is still valid, with the link's `person`, and `now`."""
    found = await tx.execute(
        sa.select(alert_case, case_link.c.person, sa.func.now().label("now"))
        .join_from(case_link, alert_case, case_link.c.case_id == alert_case.c.alert_id)
        .where(case_link.c.hash == hash_, case_link.c.expires_at > sa.func.now())
    )
    return found.one_or_none()


async def purge(tx: AsyncConnection) -> None:
    """Delete the links that are no longer valid."""
    await tx.execute(sa.delete(case_link).where(case_link.c.expires_at <= sa.func.now()))
