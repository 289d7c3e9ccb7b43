"""The state of a person's consents: one answer for their own page, staff and other services.

And who had agreed at a time, for an inspector.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.plain import plain
from libs.domain.company import split_pair
from services.consent.rules import EVERY, Action, Stands, State, stands
from services.consent.store import data_subjects
from services.consent.store.data_subjects import channel_of
from services.consent.store.sql import run
from services.consent.store.vault import Vault

LOOKED_AT = 50
"""A subject's latest agreements, to find the one that counts: anyone may add others."""
BATCH = 200
"""People of one page; each has few entries."""


class Standing(NamedTuple):
    """The state of one purpose."""

    state: Stands
    since: datetime | None
    agreement: dict[str, Any] | None
    """`text`, `version` and `language` of what was agreed to, or waits for confirmation."""


async def of_address(
    tx: AsyncConnection,
    vault: Vault,
    identity: str,
    pairs: Iterable[str],
    lifetime: timedelta,
) -> dict[str, Standing]:
    """Return the state of each purpose by which this address or number can be reached.

    Unknown ones have agreed to none.

    :param pairs: what the company asks for
    :param lifetime: of the links that ask for confirmation
    """
    agreed: dict[str, dict[str, Any]] = {}
    waiting: dict[str, tuple[datetime, dict[str, Any]]] = {}
    states: dict[str, Any] = {}
    if (subject := await data_subjects.find(tx, vault, identity)) is not None:
        key = subject.key(vault)
        states = {row.purpose: row for row in await run(tx, "dated_states", subject=subject.id)}
        opt_ins = await run(tx, "last_opt_ins", subject=subject.id, batch=LOOKED_AT)
        for cell in opt_ins.scalars():
            evidence = json.loads(key.decrypt("evidence", cell) or "{}")
            if evidence.get("counts"):
                version, text = evidence.get("wording_version"), evidence["wording"]
                about = {"text": text, "version": version, "language": evidence["language"]}
                agreed.setdefault(evidence["purpose"], about)
        for purpose, at, sealed in await run(tx, "waiting_agreements", subject=subject.id):
            if at > datetime.now(UTC) - lifetime:
                waiting[purpose] = at, json.loads(key.decrypt("agreement", sealed) or "{}")
    found = {}
    for purpose in dict.fromkeys([*pairs, *states]):
        if purpose == EVERY or split_pair(purpose)[1] != channel_of(identity):
            continue
        row = states.get(purpose)
        state = stands(row and State(row.state), waits=purpose in waiting)
        since, agreement = row and row.changed_at, None
        if state is Stands.WAITING:
            since, agreement = waiting[purpose]
        elif state is Stands.GRANTED:
            agreement = agreed.get(purpose)
        found[purpose] = Standing(state, since, agreement)
    return found


async def purposes(
    tx: AsyncConnection, vault: Vault, identity: str, pairs: Iterable[str], lifetime: timedelta
) -> dict[str, dict[str, Any]]:
    """Return the state of each purpose by its channel, as staff and other services see it."""
    found = await of_address(tx, vault, identity, pairs, lifetime)
    told: dict[str, dict[str, Any]] = {}
    for each, (state, since, about) in found.items():
        purpose, channel = split_pair(each)
        shown = {"state": state, "since": plain(since), "wording": about and about["version"]}
        told.setdefault(purpose, {})[channel] = shown
    return told


async def had_agreed(
    tx: AsyncConnection, vault: Vault, purpose: str, at: datetime, after: UUID
) -> tuple[list[dict[str, Any]], UUID | None]:
    """Return a page of who had agreed to a purpose at a time, with the proof, and the next cursor.

    Read from the trail, person by person, so that it says what stood then and not what stands now.
    An erased person is not in it: nobody can read their entries.
    """
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
            elif not {purpose, EVERY}.isdisjoint(evidence.get("purposes", [EVERY])):
                proof = None
        found += [proof] if proof else []
    return found, people[-1] if len(people) == BATCH else None


def _proof(row: Any, evidence: dict[str, Any], who: str | None) -> dict[str, Any]:
    said = ("wording_version", "wording_sha256", "wording", "source", "confirmed_by")
    return {
        "who": who,
        "since": row.timestamp,
        "given_at": evidence.get("given_at"),
        **{name: evidence.get(name) for name in said},
        "trail_row": row.id,
        "trail_hash": row.hash,
    }
