"""Permits: consent's half of protocol B. After the 200 of a withdrawal none is outstanding.

Why that holds, whichever process crashes:

- A permit is opened under the subject's row FOR SHARE, a withdrawal is written under it
  FOR UPDATE. So each permit either was committed before the withdrawal, which then sees it, or
  is requested after it, and is denied. If no consent is recorded, the answer is `closed`: a grant
  may be in flight, and the message waits for it. A mail that asks to confirm an agreement has a
  permit while that waits, which a withdrawal ends under the same lock. A withdrawal of all holds
  for every purpose that was not granted after it, also for those of which nothing is recorded.
- A permit belongs to one attempt and is closed permanently: by its return, which the sender
  writes in the transaction that records the attempt's outcome, or by a tombstone if the return
  came first. A second request for the same attempt finds it closed.
- The 200 is given when every permit of what was withdrawn was returned, which needs no clock.
  Only an unreturned permit is counted as returned by time: ten minutes after the withdrawal, and
  after its grant.
"""

import asyncio
from asyncio import timeout
from time import monotonic
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.process.logs import log
from libs.domain.email_address import MalformedEmail, normalise
from services.consent import metrics
from services.consent import rules as consent
from services.consent.changes import Withdrawal
from services.consent.messages import PermitRequest
from services.consent.rules import (
    LinkMail,
    Permit,
    PermitAnswer,
    PermitDecision,
    State,
    WithdrawalResult,
)
from services.consent.store import consents, data_subjects
from services.consent.store.data_subjects import Lock
from services.consent.store.sql import run
from services.consent.store.vault import Vault

POLL_SECONDS = 0.1


async def request(
    tx: AsyncConnection, vault: Vault, request: PermitRequest, lifetime: int
) -> PermitAnswer:
    """Answer for one attempt (step 3); a duplicate of an open request is granted what is left."""
    message, purpose = request.message, request.purpose
    try:
        normal = normalise(request.address)
    except MalformedEmail:  # such an address can never have a consent
        return consent.decide_permit(State.WITHDRAWN, None, lifetime)
    subject = await data_subjects.get_or_create(tx, vault, normal, Lock.PERMIT)
    if await data_subjects.restricted(tx, subject.id):  # nothing is sent while that lasts
        return PermitAnswer(PermitDecision.CLOSED, lifetime)
    if purpose == LinkMail.OPT_IN:
        # The mail has the id of the agreement that it asks to confirm; a withdrawal deletes it.
        waits = (await run(tx, "is_waiting", id=message, subject=subject.id)).scalar()
        state: State | None = State.GRANTED if waits else State.WITHDRAWN
    else:
        asked = {"subject": subject.id, "purpose": purpose}
        found, asks_less = (await run(tx, "state_of", **asked)).one()
        state = found and State(found)
        if (await run(tx, "undeliverable", subject=subject.id)).scalar():
            return PermitAnswer(PermitDecision.DENIED, lifetime)
        if state is State.GRANTED and asks_less:
            within = await run(tx, "within_preference", **asked, message=message)
            later = None if within.rowcount else (await run(tx, "deferred", **asked)).scalar()
            if later is not None:
                return PermitAnswer(PermitDecision.CLOSED, later, deferred=True)
    permit = None
    if state is State.GRANTED:
        permit = await _open(tx, subject.id, request)
    return consent.decide_permit(state, permit, lifetime)


async def _open(tx: AsyncConnection, subject_id: UUID, request: PermitRequest) -> Permit:
    """Record a permit for this attempt unless there is one, and return the one there is."""
    values = {"message": request.message, "attempt": request.attempt, "subject": subject_id}
    if (await run(tx, "open_permit", **values, purpose=request.purpose)).rowcount:
        return Permit(age=0, returned=False)
    # A separate statement, so that it sees a duplicate whose commit the insert has waited for.
    row = (await run(tx, "permit", **values)).one()
    return Permit(age=row.age or 0.0, returned=row.closed)


async def wait_until_answerable(
    engine: AsyncEngine,
    withdrawal: Withdrawal,
    *,
    patience: float,
    quarantine: float,
    stopping: asyncio.Event,
) -> tuple[WithdrawalResult, int]:
    """Wait, after the withdrawal's commit, until it can be answered (step 7).

    :returns: the result, and the number of unreturned permits
    """
    committed = monotonic()
    current = withdrawal.state
    while True:
        waited = monotonic() - committed
        result = consent.withdrawal_result(
            withdrawal.state.versions,
            current,
            # A stopping process answers with what it knows instead of dropping the connection.
            waited=patience if stopping.is_set() else waited,
            patience=patience,
            quarantine=quarantine,
        )
        if result is not WithdrawalResult.WAIT:
            metrics.WITHDRAWALS.labels(result).inc()
            metrics.WITHDRAWAL_SECONDS.observe(waited)
            log.info("withdrawal.answered", outcome=result, in_flight=current.unreturned)
            return result, current.unreturned
        try:
            async with timeout(POLL_SECONDS):
                await stopping.wait()
        except TimeoutError:
            pass
        async with engine.begin() as tx:
            await run(tx, "lock_subject", subject=withdrawal.subject_id)
            current = await consents.read(tx, withdrawal.subject_id, withdrawal.state.versions)
