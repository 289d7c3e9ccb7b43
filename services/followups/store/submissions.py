"""Submissions of forms: accepted ones, suspected ones, and a record of who was erased."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from services.followups.store.tables import Row, erased_contact, lead_submission

KEPT_DAYS = 7
"""As in the inbox: longer than a submission may wait in a queue or in a browser."""

_texts = pg.ARRAY(sa.Text)
_SAVE_CONVERSATION = sa.text("""
WITH said AS (
    INSERT INTO chat_message (conversation_id, author, body) VALUES (:conversation, 'lead', :said)
), named AS (
    INSERT INTO chat_email (email, conversation_id)
    SELECT email, :conversation FROM unnest(:named) AS email ON CONFLICT DO NOTHING
)
UPDATE chat_conversations SET state = :state, email = :email, score = :score,
    qualified_at = :qualified_at, updated_at = now()
WHERE id = :conversation
""").bindparams(
    sa.bindparam("conversation", type_=sa.Uuid),
    sa.bindparam("said", type_=sa.Text),
    sa.bindparam("named", type_=_texts),
    sa.bindparam("state", type_=pg.JSONB),
    sa.bindparam("email", type_=sa.Text),
    sa.bindparam("score", type_=sa.Integer),
    sa.bindparam("qualified_at", type_=sa.DateTime(timezone=True)),
)
_LOCK = sa.text(
    "SELECT pg_advisory_xact_lock(hashtext('followups.erased'), hashtext(contact)) "
    "FROM (SELECT contact FROM unnest(:contacts) AS contact ORDER BY contact) AS ordered"
).bindparams(sa.bindparam("contacts", type_=_texts))


async def save_conversation(
    tx: AsyncConnection,
    conversation_id: UUID,
    *,
    said: str,
    state: Mapping[str, Any],
    email: str | None,
    score: int,
    qualified_at: datetime | None,
) -> None:
    """Store what a form says as a message of its conversation."""
    given = {
        "conversation": conversation_id,
        "said": said,
        "named": [email] if email else [],
        "state": state,
        "email": email,
        "score": score,
        "qualified_at": qualified_at,
    }
    await tx.execute(_SAVE_CONVERSATION, given)


async def save(tx: AsyncConnection, row: Mapping[str, Any]) -> None:
    """Insert a submission; a suspected one is replaced."""
    saved = pg.insert(lead_submission).values(**row)
    await tx.execute(
        saved.on_conflict_do_update(
            index_elements=["id"], set_={name: saved.excluded[name] for name in row}
        )
    )


async def apart(
    tx: AsyncConnection, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[Row]:
    """Read a page of the suspected submissions, oldest first."""
    # Not as a row, which no index sorts.
    place = lead_submission.c.accepted_at, lead_submission.c.id
    listed = (
        sa.select(lead_submission)
        .where(lead_submission.c.conversation_id.is_(None), lead_submission.c.state == "suspected")
        .order_by(*place)
        .limit(limit)
    )
    if after is not None:
        listed = listed.where(sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after)))
    return (await tx.execute(listed)).mappings().all()


async def one(tx: AsyncConnection, submission_id: UUID, *, locked: bool = False) -> Row | None:
    found = sa.select(lead_submission).where(lead_submission.c.id == submission_id)
    found = found.with_for_update() if locked else found
    return (await tx.execute(found)).mappings().one_or_none()


async def of_lead(tx: AsyncConnection, lead: Row, limit: int) -> Sequence[UUID]:
    """Return the ids of the forms about a lead, the newest first."""
    c, here = lead_submission.c, (lead["conversation_id"], lead["heard_in"])
    before = c.lead_id.is_(None) & c.conversation_id.in_(() if lead["previous"] else here)
    found = (
        sa.select(c.id)
        .where(sa.or_(c.lead_id == lead["id"], before))
        .order_by(lead_submission.c.accepted_at.desc())
        .limit(limit)
    )
    return (await tx.execute(found)).scalars().all()


async def discard(tx: AsyncConnection, submission_id: UUID, by: str) -> None:
    """Delete its content; the fact that it existed is kept for as long as a suspected one."""
    await tx.execute(
        sa.update(lead_submission)
        .where(lead_submission.c.id == submission_id)
        .values(state="discarded", held=None, fields={}, email=None, phone=None, taken_by=by)
    )


async def forget_apart(tx: AsyncConnection, days: int, limit: int) -> int:
    """Delete a batch of suspected submissions older than this many days, and of old hashes."""
    long_ago = sa.func.now() - sa.func.make_interval(0, 0, 0, days)
    old = (
        sa.select(lead_submission.c.id)
        .where(
            lead_submission.c.conversation_id.is_(None), lead_submission.c.accepted_at < long_ago
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    gone = await tx.execute(sa.delete(lead_submission).where(lead_submission.c.id.in_(old)))
    week = sa.func.now() - sa.func.make_interval(0, 0, 0, KEPT_DAYS)
    await tx.execute(sa.delete(erased_contact).where(erased_contact.c.erased_at < week))
    return gone.rowcount


class Erased:
    """Remembers for a week who was erased, by keyed hashes: what they sent before is not stored.

    A submission that was accepted before the erasure may still be in a queue, in `.retry`, or in
    a running handler. So both transactions lock the contact before they do anything else:
    whichever is second sees the first.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        """:param keys: the first one hashes; any may have hashed"""
        self._keys = list(keys)

    @staticmethod
    async def lock(tx: AsyncConnection, contacts: Sequence[str]) -> None:
        """Prevent anyone from storing what these sent until this transaction ends."""
        await tx.execute(_LOCK, {"contacts": list(contacts)})

    async def mark(self, tx: AsyncConnection, contacts: Sequence[str]) -> None:
        """Remember them, in the transaction that deletes their data and has locked them."""
        for contact in contacts:
            marked = pg.insert(erased_contact).values(
                hash=self._hash(self._keys[0], contact), erased_at=sa.func.now()
            )
            await tx.execute(
                marked.on_conflict_do_update(
                    index_elements=["hash"], set_={"erased_at": sa.func.now()}
                )
            )

    async def since(self, tx: AsyncConnection, contacts: Sequence[str], at: datetime) -> bool:
        """Return whether one of them was erased after this time; lock them until the end."""
        await self.lock(tx, contacts)
        hashes = [self._hash(key, contact) for key in self._keys for contact in contacts]
        found = sa.select(erased_contact.c.hash).where(
            erased_contact.c.hash.in_(hashes), erased_contact.c.erased_at > at
        )
        return (await tx.execute(found.limit(1))).first() is not None

    @staticmethod
    def _hash(key: bytes, contact: str) -> str:
        return hmac.digest(key, f"erased {contact}".encode(), hashlib.sha256).hex()
