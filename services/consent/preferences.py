"""What a person has agreed to, purpose by purpose, as the page of preferences shows it."""

import json
from datetime import datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent import pages
from services.consent.consent import PURPOSES, Action, State
from services.consent.pages import Choice, Quote
from services.consent.store import people
from services.consent.store.people import Person
from services.consent.store.tables import consent_audit_log, consent_state
from services.consent.vault import Vault

ZONE = ZoneInfo("Europe/Warsaw")
LOOKED_AT = 50
"""Of a person's latest agreements, to find the one that counts: anybody may add to the others."""


async def choices(tx: AsyncConnection, vault: Vault, address: str, language: str) -> list[Choice]:
    """Tell each purpose; an address that nobody knows has agreed to nothing."""
    person = await people.find(tx, vault, address)
    states, wordings = {}, {}
    if person is not None:
        found = await tx.execute(
            sa.select(consent_state).where(consent_state.c.person_id == person.id)
        )
        states = {row.purpose: row for row in found}
        wordings = await _wordings(tx, vault, person)
    told = pages.text("preferences", language)
    shown = []
    for purpose in PURPOSES:
        row, named = states.get(purpose), pages.text(purpose, language)
        standing = "none" if row is None else str(row.state)
        granted = standing == State.GRANTED
        shown.append(
            Choice(
                purpose=purpose,
                name=named["name"],
                standing=told[standing].format(date=_date(row.changed_at, language) if row else ""),
                granted=granted,
                withdraw=named["withdraw"],
                wording=wordings.get(purpose) if granted else None,
            )
        )
    return shown


async def _wordings(tx: AsyncConnection, vault: Vault, person: Person) -> dict[str, Quote]:
    """Read by purpose what was agreed to last."""
    log = consent_audit_log
    rows = await tx.execute(
        sa.select(log.c.evidence)
        .where(log.c.person_id == person.id, log.c.action == Action.OPT_IN)
        .order_by(log.c.timestamp.desc(), log.c.id.desc())
        .limit(LOOKED_AT)
    )
    key = person.key(vault)
    found: dict[str, Quote] = {}
    for cell in rows.scalars():
        evidence = json.loads(key.decrypt("evidence", cell) or "{}")
        if evidence.get("counts"):
            quote = Quote(evidence["wording"], evidence["language"])
            found.setdefault(evidence["purpose"], quote)
    return found


def _date(at: datetime, language: str) -> str:
    local = at.astimezone(ZONE)
    return f"{local:%d.%m.%Y}" if language == "pl" else f"{local.day} {local:%B %Y}"
