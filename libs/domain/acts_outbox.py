"""Records an act in the transaction that does it."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.domain.acts import ACTION_RECORD, EXCHANGE, Act, Actor, chosen

WAIT_SECONDS = 20.0
"""For the rest of a request: as long as the gateway waits for its answer."""


async def add(tx: AsyncConnection, act: Act, count: int | None = None) -> None:
    await outbox.add(tx, EXCHANGE, ACTION_RECORD, act.message(count))


async def record(
    tx: AsyncConnection, request: web.Request, action: str, kind: str, ref: object,
    count: int | None = None, **more: Any,
) -> None:  # fmt: skip
    """:param more: of `Act`"""
    await add(tx, Act.of(request.headers, action, kind, str(ref), **more), count)


async def look(
    tx: AsyncConnection,
    headers: Mapping[str, str],
    action: str,
    kind: str,
    refs: Iterable[object],
    **asked: object,
) -> None:
    """Record that a key was used to read personal data, in the transaction that reads it.

    The console itself records what its users look at, before it shows anything.

    :param refs: what is shown, by id; for several, only their number is recorded
    :param asked: the list's filters
    """
    if (actor := Actor.of(headers)).kind == "staff":
        return
    seen = {str(ref) for ref in refs}
    ref = min(seen) if len(seen) == 1 else chosen(**asked) or "all"
    await add(tx, Act(actor, action, kind, ref), len(seen))


class Counted:
    """One act in many transactions: its record waits, and each of them adds what it did.

    If the process is killed between two, the record says what was done until then.
    """

    def __init__(self, act: Act) -> None:
        self._act = act
        self._held: outbox.Held | None = None
        self.total = 0

    async def add(self, tx: AsyncConnection, count: int) -> None:
        if not count:
            return
        self.total += count
        if self._held is not None and await outbox.count(tx, self._held, count):
            return
        # The first, or already published: what follows is a separate record.
        message = self._act.message(count)
        self._held = await outbox.hold(tx, EXCHANGE, ACTION_RECORD, message, WAIT_SECONDS)

    async def end(self, tx: AsyncConnection) -> None:
        """Release the record now."""
        if self._held is not None:
            await outbox.release(tx, self._held)
