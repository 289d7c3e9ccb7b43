"""A data subject's agreements by purpose, for the preferences page."""

import json
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from services.consent.consent import PURPOSES, State
from services.consent.http import pages
from services.consent.http.pages import Choice, Quote
from services.consent.store import consents, data_subjects, trail
from services.consent.store.data_subjects import SubjectRow
from services.consent.trail.vault import Vault

ZONE = ZoneInfo("Europe/Warsaw")
LOOKED_AT = 50
"""A subject's latest agreements, to find the one that counts: anyone may add others."""


async def choices(tx: AsyncConnection, vault: Vault, email: str, language: str) -> list[Choice]:
    """Return each purpose with its state; an unknown address has agreed to none."""
    subject = await data_subjects.find(tx, vault, email)
    states, wordings = {}, {}
    if subject is not None:
        states = await consents.dated_states(tx, subject.id)
        wordings = await _wordings(tx, vault, subject)
    texts = pages.text("preferences", language)
    shown = []
    for purpose in PURPOSES:
        row, named = states.get(purpose), pages.text(purpose, language)
        state = "none" if row is None else str(row.state)
        granted = state == State.GRANTED
        shown.append(
            Choice(
                purpose=purpose,
                name=named["name"],
                state=texts[state].format(date=_date(row.changed_at, language) if row else ""),
                granted=granted,
                withdraw=named["withdraw"],
                wording=wordings.get(purpose) if granted else None,
            )
        )
    return shown


async def _wordings(tx: AsyncConnection, vault: Vault, subject: SubjectRow) -> dict[str, Quote]:
    """Read the latest agreement of each purpose."""
    key = subject.key(vault)
    found: dict[str, Quote] = {}
    for cell in await trail.last_opt_ins(tx, subject.id, LOOKED_AT):
        evidence = json.loads(key.decrypt("evidence", cell) or "{}")
        if evidence.get("counts"):
            quote = Quote(evidence["wording"], evidence["language"])
            found.setdefault(evidence["purpose"], quote)
    return found


def _date(at: datetime, language: str) -> str:
    local = at.astimezone(ZONE)
    return f"{local:%d.%m.%Y}" if language == "pl" else f"{local.day} {local:%B %Y}"
