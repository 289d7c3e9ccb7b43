"""Who had consented to a purpose by a channel at a time, with the proof: for an inspector.

Read from the trail, person by person, so that it says what stood then and not what stands now. An
erased person is not in it: nobody can read their entries.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.rules import EVERY, MARKETING, Action
from services.consent.store import data_subjects
from services.consent.store.sql import run
from services.consent.store.vault import Vault

BATCH = 200
"""People of one page; each has few entries."""
START = UUID(int=0)


async def page(
    tx: AsyncConnection, vault: Vault, purpose: str, at: datetime, after: UUID
) -> tuple[list[dict[str, Any]], UUID | None]:
    """Return a page of those who had agreed, and the cursor of the next one."""
    people = list((await run(tx, "people_after", after=after, batch=BATCH)).scalars())
    found = []
    for person in people:
        subject = await data_subjects.find_by_id(tx, person)
        if subject is None:
            continue
        key, proof = subject.key(vault), None
        for row in await run(tx, "consents_until", subject=person, at=at):
            evidence = json.loads(key.decrypt("evidence", row.evidence) or "{}")
            if row.action == Action.OPT_IN:
                if evidence.get("purpose") == purpose and evidence.get("counts"):
                    proof = _proof(row, evidence, key.decrypt("email", row.email))
            # An entry of a release before this names no purpose and meant all.
            elif _ends(purpose, evidence.get("purposes", [EVERY])):
                proof = None
        found += [proof] if proof else []
    return found, people[-1] if len(people) == BATCH else None


def _ends(purpose: str, withdrawn: Iterable[str]) -> bool:
    return purpose in withdrawn or EVERY in withdrawn


def _proof(row: Any, evidence: dict[str, Any], who: str | None) -> dict[str, Any]:
    return {
        "who": who,
        "since": row.timestamp.isoformat(),
        "given_at": evidence.get("given_at"),
        "wording_version": evidence.get("wording_version"),
        "wording_sha256": evidence.get("wording_sha256"),
        "wording": evidence.get("wording"),
        "source": evidence.get("source"),
        "confirmed_by": evidence.get("confirmed_by"),
        "trail_row": row.id,
        "trail_hash": row.hash,
    }


def is_asked_for(purpose: str, pairs: Iterable[str]) -> bool:
    return purpose in {MARKETING, *pairs}
