"""Links that are mailed: how many an address gets, and the agreements that wait for theirs."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.consent import LINK_MAILS_A_DAY, LinkMail
from services.consent.store.tables import opt_in

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


async def waiting_agreements(tx: AsyncConnection, person_id: UUID) -> list[tuple[datetime, bytes]]:
    """Read the agreements that wait for their confirmation, sealed by the person's key."""
    rows = await tx.execute(
        sa.select(opt_in.c.asked_at, opt_in.c.agreement).where(opt_in.c.person_id == person_id)
    )
    return [(row.asked_at, row.agreement) for row in rows]
