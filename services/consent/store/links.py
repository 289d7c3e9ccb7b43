"""Mailed links: the limit per address, and the agreements that wait for confirmation."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import LINK_MAILS_A_DAY, LinkMail
from services.consent.store.sql import sql
from services.consent.store.tables import opt_in

_LINK_MAIL = f"""
    INSERT INTO link_mail AS mine (suppression_hash, kind, first_at, last_at, count)
    SELECT CAST(:hash AS bytea), CAST(:kind AS text), now(), now(), 1 WHERE CAST(:may AS boolean)
    ON CONFLICT (suppression_hash, kind) DO UPDATE SET
        count = CASE WHEN mine.first_at > now() - interval '1 day' THEN mine.count + 1 ELSE 1 END,
        first_at = CASE WHEN mine.first_at > now() - interval '1 day' THEN mine.first_at
            ELSE now() END,
        last_at = now()
    WHERE mine.last_at <= now() - interval '1 hour'
        AND (mine.count < {LINK_MAILS_A_DAY} OR mine.first_at <= now() - interval '1 day')
    RETURNING 1 AS noted
"""


_MAY_MAIL = sql(_LINK_MAIL)


async def may_mail(tx: AsyncConnection, suppression_hash: bytes, kind: LinkMail) -> bool:
    """Record that a link is mailed now; False if the address has reached its limit of this kind.

    The limit is one per hour and three per day and kind, so that requests of one kind cannot block
    the other kind. The row decides, so any number of concurrent requests, in any number of
    processes, make one mail.
    """
    noted = await _MAY_MAIL.execute(tx, {"hash": suppression_hash, "kind": str(kind), "may": True})
    return noted.one_or_none() is not None


_AWAIT_OPT_IN = sql(f"""
    WITH mailed AS ({_LINK_MAIL})
    INSERT INTO opt_in (id, subject_id, purpose, agreement)
    SELECT :id, :subject, :purpose, :agreement FROM mailed
""")


async def await_opt_in(
    tx: AsyncConnection,
    opt_in_id: UUID,
    subject_id: UUID,
    purpose: str,
    agreement: bytes | None,
    suppression_hash: bytes,
    *,
    may: bool,
) -> bool:
    """Keep an agreement until it is confirmed, if a link may be mailed now (`may_mail`).

    :param may: False stores nothing, in the same time
    """
    kept = await _AWAIT_OPT_IN.execute(
        tx,
        {
            "hash": suppression_hash,
            "kind": str(LinkMail.OPT_IN),
            "may": may,
            "id": opt_in_id,
            "subject": subject_id,
            "purpose": purpose,
            "agreement": agreement,
        },
    )
    return kept.rowcount == 1


async def waiting_opt_in(
    tx: AsyncConnection, opt_in_id: UUID, subject_id: UUID, purpose: str
) -> bytes | None:
    """Return the agreement that this link confirms; None if it was used or is void."""
    agreement: bytes | None = await tx.scalar(
        sa.select(opt_in.c.agreement).where(
            opt_in.c.id == opt_in_id,
            opt_in.c.subject_id == subject_id,
            opt_in.c.purpose == purpose,
        )
    )
    return agreement


async def is_waiting(tx: AsyncConnection, opt_in_id: UUID, subject_id: UUID) -> bool:
    """Return whether this agreement waits for this subject's confirmation."""
    this = sa.exists().where(opt_in.c.id == opt_in_id, opt_in.c.subject_id == subject_id)
    return bool(await tx.scalar(sa.select(this)))


async def use_opt_in(tx: AsyncConnection, opt_in_id: UUID) -> None:
    await tx.execute(sa.delete(opt_in).where(opt_in.c.id == opt_in_id))


async def waiting_agreements(
    tx: AsyncConnection, subject_id: UUID
) -> list[tuple[str, datetime, bytes]]:
    """Read the agreements that wait for confirmation, the oldest first: purpose, time, and text
    sealed with the subject's key.
    """
    rows = await tx.execute(
        sa.select(opt_in.c.purpose, opt_in.c.asked_at, opt_in.c.agreement)
        .where(opt_in.c.subject_id == subject_id)
        .order_by(opt_in.c.asked_at)
    )
    return [(row.purpose, row.asked_at, row.agreement) for row in rows]
