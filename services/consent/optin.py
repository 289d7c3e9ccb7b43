"""Opt-in: agreements that count at once, and those that wait for confirmation by a mailed link.

A waiting agreement is sealed with the subject's key. Its link is bound to that agreement and its
exact wording, works once within some days, and is void after a withdrawal or an erasure.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.process.logs import log
from libs.domain import company, forms
from libs.domain.company import split_pair
from libs.domain.signed_links import Claims
from services.consent import changes
from services.consent.mails import LinkMails, read_opt_in
from services.consent.rules import MARKETING, Action, Agreement, wording_hash
from services.consent.settings import ConsentSettings
from services.consent.store import data_subjects
from services.consent.store.data_subjects import Lock
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.trail.chain import Entry, Origin


class OptIns:
    def __init__(self, vault: Vault, link_mails: LinkMails, settings: ConsentSettings) -> None:
        self._vault = vault
        self._link_mails = link_mails
        self._double_opt_in = settings.double_opt_in
        self.company = company.load(settings.company_config)
        known = forms.load(settings.forms_config)
        self.published = forms.finder(self.company, known)
        self.pairs = self.company.pairs
        """What the company asks for, by purpose and channel."""
        for name, form in known.items():
            if unknown := [each for each in form.purposes if each not in self.pairs]:
                raise SystemExit(f"forms.{name}.consents: [purposes] lack {unknown[0]}")
        self.lifetime = timedelta(days=settings.opt_in_link_days)

    async def record(
        self,
        tx: AsyncConnection,
        entry: Entry,
        agreement: Agreement,
        language: str,
        purpose: str = MARKETING,
    ) -> bool:
        """Record an agreement; mail a link if it needs confirmation.

        An import may contain a text that nobody has published: it is stored, and the link asks for
        the newest wording instead.

        :param language: language of that mail
        :returns: whether it counts already
        :raises ValueError: neither an e-mail address nor a number
        :raises ErasedSince: see `changes.grant`
        """
        asked, make_mail = agreement, True
        if agreement.version is None:
            newest = self.company.current(purpose, language)
            make_mail = newest is not None
            if newest is not None:
                asked = replace(
                    agreement, text=newest.text, version=newest.version, language=newest.language,
                    given_at=datetime.now(UTC),
                )  # fmt: skip
        return await changes.grant(
            tx,
            self._vault,
            entry,
            agreement,
            purpose=purpose,
            double_opt_in=self._double_opt_in,
            asked=asked,
            make_mail=self._link_mails.opt_in(purpose, asked, language) if make_mail else None,
        )

    def label(self, purpose: str, language: str) -> str | None:
        """Return how company.toml names this purpose."""
        name, channel = split_pair(purpose)
        if (named := self.company.purposes.get(name)) is None:
            return None
        label = named.label.get(language) or next(iter(named.label.values()))
        return label if channel == "email" else f"{label} ({channel})"

    async def waiting(self, tx: AsyncConnection, claims: Claims) -> Agreement | None:
        """Return the agreement that this link confirms; None if it was used or is void."""
        found = await self._find(tx, claims)
        return found and found[0]

    async def confirm(self, tx: AsyncConnection, claims: Claims, origin: Origin) -> bool:
        """Make the agreement count, and lift the suppression for its purpose.

        :returns: False, and nothing was changed, when the link was used or is void
        """
        # The same lock as a withdrawal takes: whichever comes second sees the first.
        found = await self._find(tx, claims, Lock.CHANGE)
        if found is None:
            return False
        agreement, session_id = found
        purpose, opt_in_id, _ = read_opt_in(claims)
        await run(tx, "use_opt_in", id=opt_in_id)
        entry = Entry(
            Action.OPT_IN,
            claims.subject,
            origin,
            session_id=session_id,
            evidence={"confirmed_by": "mailed link", "confirmation": str(opt_in_id)},
        )
        counts = await changes.grant(
            tx, self._vault, entry, agreement, purpose=purpose, confirmed=True
        )
        log.info("opt_in.confirmed", counts=counts)
        return counts

    async def _find(
        self, tx: AsyncConnection, claims: Claims, lock: str = Lock.NONE
    ) -> tuple[Agreement, str | None] | None:
        """Find the waiting agreement, with the session in which it was given."""
        purpose, opt_in_id, hashed = read_opt_in(claims)
        subject = await data_subjects.find(tx, self._vault, claims.subject, lock)
        if subject is None:
            return None
        asked = {"id": opt_in_id, "subject": subject.id, "purpose": purpose}
        sealed = (await run(tx, "waiting_opt_in", **asked)).scalar()
        read = json.loads(subject.key(self._vault).decrypt("agreement", sealed) or "null")
        if read is None or wording_hash(read["text"]) != hashed:
            return None
        session_id, given_at = read.pop("session_id"), datetime.fromisoformat(read["given_at"])
        return Agreement(**read | {"given_at": given_at}), session_id
