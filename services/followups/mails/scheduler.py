"""Sends due steps to alerts. Any number of replicas may run concurrently.

One transaction claims the steps and adds the messages to the outbox. After a crash before the
commit the steps are still scheduled; after the commit the relay publishes the messages.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.messaging import outbox
from libs.common.messaging.broker import Message
from libs.common.process.logs import log
from services.followups import messages, metrics
from services.followups.config import Config
from services.followups.dialogue.state import State
from services.followups.mails.compose import Mails, Recipient
from services.followups.rules.sequence import ON_ITS_WAY, after_cap
from services.followups.store import steps
from services.followups.store.sql import run
from services.followups.store.tables import Row
from services.followups.topology import ALERTS, ALERTS_INTAKE

POLL_SECONDS = 1.0
"""Due steps must be handed over within 5 s. A poll that finds nothing costs one index probe."""
BATCH = 250


class Scheduler:
    def __init__(self, engine: AsyncEngine, config: Config, mails: Mails, cap: int) -> None:
        self._engine = engine
        self._config = config
        self._mails = mails
        self._cap = cap

    async def run(self) -> None:
        while await self.hand_over(datetime.now(UTC)) == BATCH:
            pass

    async def hand_over(self, now: datetime) -> int:
        """Claim one batch of due steps and put their mails into the outbox.

        :returns: how many were due
        """
        # Steps are scheduled into open hours, but may be found late or come back rescheduled.
        if not self._config.hours.is_open(now):
            return 0
        async with self._engine.begin() as tx:
            claimed, due = await steps.claim(tx, BATCH)
            if not claimed:
                return due
            leaving = await self._within_cap(tx, claimed, now)
            written = [await self._write(tx, row, now) for row in leaving]
            await outbox.add_all(
                tx,
                [
                    (ALERTS.name, ALERTS_INTAKE, message)
                    for message in written
                    if message is not None
                ],
            )
        metrics.HANDED_OVER.inc(len(leaving))
        for row in leaving:
            metrics.LAG.observe((row["handed_over_at"] - row["due_at"]).total_seconds())
        log.info("scheduler.handed_over", claimed=len(claimed), handed_over=len(leaving))
        return due

    async def _within_cap(
        self, tx: AsyncConnection, claimed: Sequence[Row], now: datetime
    ) -> list[Row]:
        """Postpone steps that exceed the daily cap of their address; return the rest."""
        emails = sorted({row["email"] for row in claimed})
        recent, on_their_way = await steps.recent_hand_overs(
            tx, emails, [row["id"] for row in claimed]
        )
        leaving = []
        for row in claimed:
            others = recent.get(row["email"])
            if others is None:  # another scheduler has this address: try again at the next poll
                await run(tx, "put_off", id=row["id"], due_at=row["due_at"])
            elif row["email"] in on_their_way:
                await run(tx, "put_off", id=row["id"], due_at=now + ON_ITS_WAY)
                metrics.DEFERRED.inc()
            elif (later := after_cap(others, self._cap, now, self._config.hours)) is not None:
                await run(tx, "put_off", id=row["id"], due_at=later)
                metrics.DEFERRED.inc()
            else:
                on_their_way.add(row["email"])
                leaving.append(row)
        return leaving

    async def _write(self, tx: AsyncConnection, row: Row, now: datetime) -> Message | None:
        """Return the alert that carries the mail; fail only this step if that is impossible."""
        state = State.of(row["state"])
        language = state.language or self._config.default_language
        to = Recipient(row["id"], row["email"], language, state.facts)
        try:
            step = self._config.sequences[row["sequence"]][row["step"] - 1]
        except (KeyError, IndexError):
            await self._fail(tx, row, "this step is no longer configured")
            return None
        try:
            mail = self._mails.render(step, to, now)
        except Exception as error:  # noqa: BLE001 - a template may raise anything, every time
            await self._fail(tx, row, f"template: {type(error).__name__}")
            return None
        message_id = row["message_id"] or row["id"]
        return Message(
            id=str(message_id),
            type=messages.ALERT_ACCEPTED,
            body=messages.alert_accepted(
                message_id,
                row["id"],
                row["conversation_id"],
                row["email"],
                mail,
                now,
                self._config.hours.closing(now),
            ),
            request_id=row["request_id"],
        )

    async def _fail(self, tx: AsyncConnection, row: Row, reason: str) -> None:
        await run(tx, "fail", id=row["id"], reason=reason)
        metrics.ENDED.labels("failed").inc()
        log.error(
            "scheduler.step_failed", sequence=row["sequence"], step=row["step"], reason=reason
        )
