"""Mails to people of the console, and notices to every admin.

Each is a row of the outbox in the transaction of the act: without the act there is no mail.
"""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.messaging import outbox
from libs.common.messaging.broker import Message
from libs.common.process import logs
from libs.domain.acts import Actor
from services.console import record
from services.console.messages import staff_mail
from services.console.rules import Role
from services.console.store.sql import run
from services.console.texts import TEXTS, moment


class Notices:
    def __init__(self, base_url: str) -> None:
        self._base = base_url.rstrip("/")

    def link(self, token: str) -> str:
        return f"{self._base}/console/invitation/{token}"

    async def mail(self, tx: AsyncConnection, to: Any, about: str, **values: object) -> None:
        """Mail the text `mail_<about>`; one that only says what was done is `notice`.

        :param to: a row of `staff`
        """
        t, at = TEXTS[to.language], datetime.now(UTC)
        said = {"base": self._base, "email": to.email, "at": moment(at), **values}
        text = t[f"mail_{about}"].format(**said)
        payload = {"to": to.email, "subject": t[f"subject_{about}"], "text": text}
        body = staff_mail(id_ := uuid4(), payload, at)
        message = Message(str(id_), "alert.accepted", body, logs.request_id.get())
        await outbox.add(tx, "alerts", "alerts.intake", message)

    async def mail_what(self, tx: AsyncConnection, to: Any, told: str, **values: object) -> None:
        """Notify a person of a change to their own login, with the text `told_<told>`."""
        what = TEXTS[to.language][f"told_{told}"].format(**values)
        await self.mail(tx, to, "notice", what=what)

    async def tell(
        self, tx: AsyncConnection, actor: Actor, action: str, ref: str, whom: str, *,
        kind: str = "staff", detail: str = "", also: Any = None,
    ) -> None:  # fmt: skip
        """Record an act that owners should hear of, and mail it to every admin.

        :param action: one of `people.TOLD`, which *Start* shows for a week
        :param whom: the name of the person or key that it is about
        :param detail: roles or scopes, as one text
        :param also: a row of `staff`, who is also notified
        """
        await record.act(tx, actor, action, kind, ref, reason=detail or None)
        admins = await run(tx, "admins")
        for each in {each.id: each for each in (*admins, also) if each}.values():
            what = sentence(each.language, action, actor, whom, detail)
            await self.mail(tx, each, "notice", what=what)


def name_of(actor: Actor) -> str:
    """Return who acts; a claim made with a key of the environment proves nothing."""
    return actor.name or "?" if actor.kind == "staff" else actor.id


def sentence(language: str, action: str, actor: Actor, whom: str, detail: str) -> str:
    """Say what was done, as mails and *Start* do."""
    t = TEXTS[language]
    named = {str(role): t[f"role_{role}"].partition(":")[0] for role in Role}
    detail = ", ".join(named.get(each, each) for each in detail.split(", "))
    return t["told_" + re.sub("[.-]", "_", action)].format(
        who=name_of(actor), whom=whom, detail=detail
    )
