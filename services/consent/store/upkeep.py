"""Deletes rows past their retention."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.store.sql import run

_PURGES = ("permits", "suppressions", "erasures", "opt_ins", "link_mails", "origins")


async def purge(tx: AsyncConnection, retention: Mapping[str, int], batch: int = 1_000) -> int:
    """Delete a batch of rows past their retention, and destroy the keys of subjects about whom
    no proof is needed; return 0 if there are none.

    :param retention: of ConsentSettings
    """
    values = {**retention, "batch": batch}
    deleted = int((await run(tx, "purge_calls", **values)).scalar_one())
    for name in _PURGES:
        deleted += (await run(tx, f"purge_{name}", **values)).rowcount
    expired = (await run(tx, "lock_expired", **values)).scalars()
    if not expired:
        return deleted
    ids = [str(subject_id) for subject_id in expired]
    return deleted + (await run(tx, "forget_expired", **values, ids=ids)).rowcount
