"""Opt-in: what counts at once, and what waits until the mailbox's owner has confirmed it by mail.

An agreement that waits is kept under the person's key. Its link is bound to that agreement and its
exact wording, is good once and for some days, and dies with a withdrawal or an erasure.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common import logs
from libs.common.tokens import Claims, Tokens
from services.consent import changes, pages
from services.consent.callers import OPT_IN_TOKEN
from services.consent.changes import AskForProof, Wording
from services.consent.consent import Action, wording_hash
from services.consent.settings import ConsentSettings
from services.consent.store import links, people
from services.consent.store.people import Lock, Person
from services.consent.trail import Entry, Origin
from services.consent.vault import Vault

log = logs.get_logger(__name__)

MARKETING = "marketing"


class OptIns:
    def __init__(self, vault: Vault, tokens: Tokens, settings: ConsentSettings) -> None:
        self._vault = vault
        self._tokens = tokens
        self._base_url = settings.public_base_url.rstrip("/")
        self._site = settings.site
        self._confirm_first = settings.double_opt_in
        self.lifetime = timedelta(days=settings.opt_in_link_days)

    async def record(
        self,
        tx: AsyncConnection,
        entry: Entry,
        wording: Wording,
        language: str,
        purpose: str = MARKETING,
        *,
        may_mail: bool = True,
    ) -> bool:
        """Record an agreement; where it needs one, have a link mailed that confirms it.

        :param language: of that mail
        :returns: whether it counts already
        :raises MalformedAddress:
        """
        return await changes.grant(
            tx,
            self._vault,
            entry,
            wording,
            purpose=purpose,
            confirm_first=self._confirm_first,
            ask_for_proof=self._asking(purpose, wording.text, language) if may_mail else None,
        )

    def _asking(self, purpose: str, wording: str, language: str) -> AskForProof:
        def mail(address: str, opt_in_id: UUID) -> dict[str, Any]:
            about = f"{purpose}.{opt_in_id}.{wording_hash(wording)}"
            token = self._tokens.sign(address, about, OPT_IN_TOKEN, datetime.now(UTC))
            rendered = pages.mail(
                "opt_in_mail",
                language,
                link=f"{self._base_url}/opt-in/confirm?token={token}",
                lifetime=self.lifetime,
                site=self._site,
                wording=wording,
            )
            return {"to": address, **rendered}

        return mail

    async def waiting(self, tx: AsyncConnection, claims: Claims) -> Wording | None:
        """Return what this link confirms; None when it was used, or is void."""
        purpose, opt_in_id, hashed = _about(claims)
        person = await people.find(tx, self._vault, claims.subject)
        if person is None:
            return None
        kept = await links.waiting_opt_in(tx, opt_in_id, person.id, purpose)
        found = self._read(person, kept, hashed)
        return found and found[0]

    async def confirm(self, tx: AsyncConnection, claims: Claims, origin: Origin) -> bool:
        """Let the agreement count, and lift the suppression for its purpose.

        :returns: False, and nothing was changed, when the link was used, or is void
        """
        purpose, opt_in_id, hashed = _about(claims)
        # The lock of a withdrawal: whichever is first, the other sees what it left.
        person = await people.find(tx, self._vault, claims.subject, Lock.CHANGE)
        if person is None:
            return False
        kept = await links.waiting_opt_in(tx, opt_in_id, person.id, purpose)
        found = self._read(person, kept, hashed)
        if found is None:
            return False
        wording, session_id = found
        await links.use_opt_in(tx, opt_in_id)
        entry = Entry(
            Action.OPT_IN,
            claims.subject,
            origin,
            session_id=session_id,
            evidence={"confirmed_by": "mailed link", "confirmation": str(opt_in_id)},
        )
        await changes.grant(tx, self._vault, entry, wording, purpose=purpose, confirmed=True)
        log.info("opt_in.confirmed")
        return True

    def _read(
        self, person: Person, kept: bytes | None, hashed: str
    ) -> tuple[Wording, str | None] | None:
        read = json.loads(person.key(self._vault).decrypt("agreement", kept) or "null")
        if read is None or wording_hash(read["text"]) != hashed:
            return None
        given_at = datetime.fromisoformat(read["given_at"])
        wording = Wording(read["text"], read["language"], read["source"], given_at)
        return wording, read["session_id"]


def _about(claims: Claims) -> tuple[str, UUID, str]:
    purpose, opt_in_id, hashed = claims.purpose.split(".")  # authentic, so well-formed
    return purpose, UUID(opt_in_id), hashed
