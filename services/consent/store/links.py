"""Mailed links: the limit per address, and the agreements that wait for confirmation."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import LINK_MAILS_A_DAY, MARKETING, LinkMail
from services.consent.store.sql import run


async def may_mail(tx: AsyncConnection, suppression_hash: bytes, kind: LinkMail) -> bool:
    """Record that a link is mailed now; False if the address has reached its limit of this kind.

    The limit is one per hour and three per day and kind, so that requests of one kind cannot block
    the other kind. The row decides, so any number of concurrent requests, in any number of
    processes, make one mail.
    """
    mail = {"hash": suppression_hash, "kind": str(kind), "may": True, "a_day": LINK_MAILS_A_DAY}
    return bool(await run(tx, "may_mail", **mail))


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

    Each purpose has its own share of mails: two boxes of a form are confirmed by a mail each.

    :param may: False stores nothing, in the same time
    """
    kind = str(LinkMail.OPT_IN) if purpose == MARKETING else f"{LinkMail.OPT_IN}:{purpose}"
    mail = {"hash": suppression_hash, "kind": kind, "may": may, "a_day": LINK_MAILS_A_DAY}
    kept = {"id": opt_in_id, "subject": subject_id, "purpose": purpose, "agreement": agreement}
    return (await run(tx, "await_opt_in", **mail, **kept)).rowcount == 1


async def use_opt_in(tx: AsyncConnection, opt_in_id: UUID) -> None:
    await run(tx, "use_opt_in", id=opt_in_id)


async def waiting_agreements(
    tx: AsyncConnection, subject_id: UUID
) -> list[tuple[str, datetime, bytes]]:
    """Read the agreements that wait for confirmation, the oldest first: purpose, time, and text
    sealed with the subject's key.
    """
    return [tuple(row) for row in await run(tx, "waiting_agreements", subject=subject_id)]
