"""The state of a person's consents: one answer for their own page, staff and other services."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.domain.company import split_pair
from services.consent.identity import channel_of
from services.consent.rules import EVERY, Stands, State, stands
from services.consent.store import data_subjects, links
from services.consent.store.sql import run
from services.consent.store.vault import Vault

LOOKED_AT = 50
"""A subject's latest agreements, to find the one that counts: anyone may add others."""


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
        for purpose, at, sealed in await links.waiting_agreements(tx, subject.id):
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
