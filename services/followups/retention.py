"""Deletes conversations after their retention period."""

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.process import logs
from services.followups import metrics
from services.followups.store import conversations, mails, steps, submissions

BATCH = 500
MAIL_DAYS = 365
"""What is kept of a mail at most: else it goes with its lead, or after 30 days."""
OUTCOME_DAYS = 7
"""More than twice the `max_age` of a delivery, after which alerts has ended it."""

log = logs.get_logger(__name__)


async def forget_suspected(engine: AsyncEngine, days: int) -> int:
    """Delete suspected submissions that nobody released.

    :returns: how many submissions were deleted
    """
    forgotten = 0
    while True:
        async with engine.begin() as tx:
            count = await submissions.forget_apart(tx, days, BATCH)
        forgotten += count
        if count < BATCH:
            return forgotten


async def doubt(engine: AsyncEngine) -> None:
    """List hand-overs without an outcome as in doubt: alerts ends each of its own before that."""
    async with engine.begin() as tx:
        count = await steps.doubt(tx, OUTCOME_DAYS)
    metrics.ENDED.labels("in_doubt").inc(count)


async def forget(engine: AsyncEngine, days: int) -> int:
    """Delete in small transactions; an interrupted run continues in the next hour.

    :returns: how many conversations were deleted
    """
    forgotten = 0
    while True:
        async with engine.begin() as tx:
            count = await conversations.forget(tx, days, BATCH)
            gone = (await mails.run(tx, "forget", days=MAIL_DAYS, limit=BATCH)).rowcount
        forgotten += count
        metrics.FORGOTTEN.inc(count)
        if max(count, gone) < BATCH:
            log.info("conversations.deleted", count=forgotten)
            return forgotten
