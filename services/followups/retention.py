"""Deletes conversations after their retention period."""

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.process.logs import log
from services.followups import metrics
from services.followups.store.sql import run
from services.followups.store.submissions import KEPT_DAYS

BATCH = 500
MAIL_DAYS = 365
"""What is kept of a mail at most: else it goes with its lead, or after 30 days."""
OUTCOME_DAYS = 7
"""More than twice the `max_age` of a delivery, after which alerts has ended it."""


async def forget_suspected(engine: AsyncEngine, days: int) -> int:
    """Delete suspected submissions that nobody released.

    :returns: how many submissions were deleted
    """
    forgotten = 0
    while True:
        async with engine.begin() as tx:
            await run(tx, "forget_erased", days=KEPT_DAYS)
            count = (await run(tx, "forget_apart", days=days, limit=BATCH)).rowcount
        forgotten += count
        if count < BATCH:
            return forgotten


async def doubt(engine: AsyncEngine) -> None:
    """List hand-overs without an outcome as in doubt: alerts ends each of its own before that."""
    count = (await run.alone(engine, "doubt", days=OUTCOME_DAYS)).rowcount
    metrics.ENDED.labels("in_doubt").inc(count)


async def forget(engine: AsyncEngine, days: int) -> int:
    """Delete in small transactions; an interrupted run continues in the next hour.

    :returns: how many conversations were deleted
    """
    forgotten = 0
    while True:
        async with engine.begin() as tx:
            count = (await run(tx, "forget", days=days, limit=BATCH)).rowcount
            gone = (await run(tx, "forget_mails", days=MAIL_DAYS, limit=BATCH)).rowcount
        forgotten += count
        metrics.FORGOTTEN.inc(count)
        if max(count, gone) < BATCH:
            log.info("conversations.deleted", count=forgotten)
            return forgotten
