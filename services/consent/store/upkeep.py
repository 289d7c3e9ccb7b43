"""Deletes rows past their retention; counts for the metrics."""

from dataclasses import asdict, dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.sql import run

_PURGES = ("permits", "suppressions", "erasures", "opt_ins", "link_mails", "origins")


@dataclass(frozen=True, slots=True)
class Retention:
    """In days; see settings.py for the reasons."""

    suppressions: int
    unconfirmed_erasures: int
    proofs: int
    withdrawals: int
    origins: int


async def purge(tx: AsyncConnection, retention: Retention, batch: int = 1_000) -> int:
    """Delete a batch of rows past their retention, and destroy the keys of subjects about whom
    no proof is needed; return 0 if there are none.
    """
    values = {**asdict(retention), "batch": batch}
    deleted = 0
    for name in _PURGES:
        deleted += (await run(tx, f"purge_{name}", **values)).rowcount
    expired = (await run(tx, "lock_expired", **values)).scalars()
    if not expired:
        return deleted
    ids = [str(subject_id) for subject_id in expired]
    return deleted + (await run(tx, "forget_expired", **values, ids=ids)).rowcount


async def outbox_length(tx: AsyncConnection) -> int:
    return int((await run(tx, "outbox_length")).scalar() or 0)
