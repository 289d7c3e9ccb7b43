"""Permits: consent's half of protocol B. After the 200 of a withdrawal none is outstanding.

Why that holds, whoever dies in between:

- A permit is opened under the person's row FOR SHARE, a withdrawal is written under it
  FOR UPDATE. So each permit either was committed before the withdrawal, which then sees it, or
  is asked for after it, and is denied.
- A permit belongs to one attempt and is closed for good: by its return, which the sender
  writes in the transaction that settles the attempt, or by its tombstone when the return came
  first. A second request for the same attempt finds it closed.
- The 200 is given when every permit of the person was returned, which needs no clock. Only a
  permit that nobody returned is counted as returned by time: ten minutes after the withdrawal.
"""

import asyncio
from asyncio import timeout
from time import monotonic
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import logs
from libs.common.addresses import MalformedAddress, normalise
from services.consent import consent, metrics
from services.consent.changes import Withdrawal
from services.consent.consent import (
    Outcome,
    PermitAnswer,
    State,
)
from services.consent.store import consents, people
from services.consent.store.people import Lock
from services.consent.vault import Vault

log = logs.get_logger(__name__)

POLL_SECONDS = 0.1


async def request(
    tx: AsyncConnection,
    vault: Vault,
    *,
    message: UUID,
    attempt: int,
    address: str,
    purpose: str,
    lifetime: int,
) -> PermitAnswer:
    """Answer for one attempt (step 3); a twin of an open request is granted what is left."""
    try:
        normal = normalise(address)
    except MalformedAddress:  # nobody can have agreed for it
        return consent.answer_permit(None, None, lifetime)
    person = await people.enter(tx, vault, normal, Lock.PERMIT)
    state = await consents.state_of(tx, person.id, purpose)
    granted = state is State.GRANTED
    permit = await consents.open_permit(tx, person.id, message, attempt) if granted else None
    return consent.answer_permit(state, permit, lifetime)


async def settled(
    engine: AsyncEngine,
    withdrawal: Withdrawal,
    *,
    patience: float,
    quarantine: float,
    stopping: asyncio.Event,
) -> tuple[Outcome, int]:
    """Wait, after the withdrawal's commit, until it can be answered (step 7).

    :returns: the outcome, and how many permits are still out
    """
    committed = monotonic()
    seen = withdrawal.standing
    while True:
        waited = monotonic() - committed
        outcome = consent.settle(
            withdrawal.standing.versions,
            seen,
            # A process that has to stop tells what it knows instead of losing the connection.
            waited=patience if stopping.is_set() else waited,
            patience=patience,
            quarantine=quarantine,
        )
        if outcome is not Outcome.WAIT:
            metrics.WITHDRAWALS.labels(outcome).inc()
            metrics.WITHDRAWAL_SECONDS.observe(waited)
            log.info("withdrawal.answered", outcome=outcome, in_flight=seen.unreturned)
            return outcome, seen.unreturned
        try:
            async with timeout(POLL_SECONDS):
                await stopping.wait()
        except TimeoutError:
            pass
        async with engine.begin() as tx:
            await people.lock(tx, withdrawal.person_id)
            seen = await consents.standing(tx, withdrawal.person_id, withdrawal.standing.versions)
