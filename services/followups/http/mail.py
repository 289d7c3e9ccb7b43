"""Mail that comes back over HTTP, and addresses that take none."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from libs.common.http.application import Problem, json_response, only, path_id
from libs.common.http.heads import media_type
from libs.domain import acts_outbox
from libs.domain.acts import Act
from services.followups.inbox import addresses
from services.followups.inbox.acting import Inbox
from services.followups.inbox.reader import MOST_BYTES
from services.followups.inbox.worker import Unreadable
from services.followups.store import mails

PAGE = 100
AT_ONCE = 4
"""Mails in memory, of 10 MiB each at most."""


@dataclass(frozen=True, eq=False)
class MailRoutes:
    inbox: Inbox
    room: asyncio.Semaphore

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/mail/inbound", only("service", self.take))
        app.router.add_get("/api/mail/undeliverable", only("service", self.list))
        app.router.add_post("/api/mail/undeliverable/{id}/retry", only("service", self.retry))
        app.router.add_get("/api/mail/rates", only("admin", self.rates))

    async def take(self, request: web.Request) -> web.Response:
        """Take a mail; answered 200, it is stored and acted on."""
        if media_type(request.headers) not in {"message/rfc822", "application/octet-stream"}:
            raise Problem(415, detail="send message/rfc822")
        if self.room.locked():
            raise Problem(503, detail="too many mails at once", headers={"Retry-After": "5"})
        async with self.room:
            raw = await _body(request)
            try:
                outcome = await self.inbox.take(raw)
            except Unreadable:
                await self.inbox.unreadable("POST /api/mail/inbound")
                raise Problem(422, detail="this mail cannot be read; nothing is kept") from None
        return json_response({"outcome": outcome})

    async def list(self, request: web.Request) -> web.Response:
        """List the addresses to which nothing more is sent."""
        after = request.query.get("cursor", "")
        async with self.inbox.engine.begin() as tx:
            found = await mails.run(tx, "undeliverable", after=after, limit=PAGE + 1)
            rows = [row._asdict() for row in found]
            more, rows = len(rows) > PAGE, rows[:PAGE]
            seen = [row["conversation_id"] for row in rows]
            await acts_outbox.look(tx, request.headers, "mail.look", "conversation", seen)
        return json_response(
            {
                "items": [_item(row) for row in rows],
                "next_cursor": rows[-1]["email"] if more else None,
            }
        )

    async def retry(self, request: web.Request) -> web.Response:
        """Allow mail to the addresses of a conversation again; cancelled steps stay so."""
        conversation_id = path_id(request, "address")
        freed = 0
        async with self.inbox.engine.begin() as tx:
            for row in await mails.run(tx, "undeliverable_of", conversation=conversation_id):
                freed += await addresses.try_again(tx, row.email)
            if not freed:
                raise Problem(404, detail="no such address")
            act = Act.of(request.headers, "mail.retry", "conversation", str(conversation_id))
            await acts_outbox.record(tx, act, freed)
        return json_response({"addresses": freed})

    async def rates(self, _: web.Request) -> web.Response:
        """Count the mails of the last day."""
        async with self.inbox.engine.connect() as tx:
            (row,) = await mails.run(tx, "rates")
        return json_response(row._asdict())


async def _body(request: web.Request) -> bytes:
    """:raises Problem: 413 it is larger than a mail may be"""
    raw = bytearray()
    async for part in request.content.iter_any():
        raw += part
        if len(raw) > MOST_BYTES:
            raise Problem(413, detail=f"the mail is larger than {MOST_BYTES} bytes")
    return bytes(raw)


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "email": row["email"],
        "conversation_id": str(row["conversation_id"]),
        "reason": row["reason"],
        "since": row["since"].isoformat(),
    }
