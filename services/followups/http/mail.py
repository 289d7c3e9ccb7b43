"""Mail that comes back over HTTP, and addresses that take none."""

import asyncio
from dataclasses import dataclass
from operator import attrgetter
from typing import cast

from aiohttp import web

from libs.common.http.application import (
    Problem,
    check_json,
    json_response,
    media_type,
    only,
    page,
    path_id,
)
from libs.domain import acts_outbox
from services.followups.inbox import providers
from services.followups.inbox.acting import Inbox, report_address
from services.followups.inbox.reader import MOST_BYTES
from services.followups.inbox.worker import Unreadable
from services.followups.store import steps
from services.followups.store.sql import run

PAGE = 100
AT_ONCE = 4
"""Mails in memory, of 10 MiB each at most."""


@dataclass(frozen=True, eq=False)
class MailRoutes:
    inbox: Inbox
    room: asyncio.Semaphore

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/mail/inbound", only("service", self.take))
        app.router.add_post("/api/mail/events/{provider}", only("service", self.report))
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
            try:
                raw = await request.clone(client_max_size=MOST_BYTES).read()
                outcome = await self.inbox.take(raw)
            except web.HTTPRequestEntityTooLarge:
                raise Problem(413, detail=f"the mail is larger than {MOST_BYTES} bytes") from None
            except Unreadable:
                await self.inbox.unreadable("POST /api/mail/inbound")
                raise Problem(422, detail="this mail cannot be read; nothing is kept") from None
        return json_response({"outcome": outcome})

    async def report(self, request: web.Request) -> web.Response:
        """Take a provider's webhook; each of its reports is acted on by itself."""
        provider = cast("providers.Provider", request.match_info["provider"])
        data = check_json(await request.read())
        if (address := providers.confirmation(provider, data)) is not None:
            await self.inbox.confirm(address)
        found = providers.reports(provider, data)
        outcomes = [await self.inbox.act(each, leaves=True) for each in found]
        return json_response({"outcomes": outcomes})

    async def list(self, request: web.Request) -> web.Response:
        """List the addresses to which nothing more is sent."""
        after = request.query.get("cursor", "")
        async with self.inbox.engine.begin() as tx:
            found = await run(tx, "undeliverable", after=after, limit=PAGE + 1)
            listed = page(found, PAGE, attrgetter("email"))
            seen = [row["conversation_id"] for row in listed["items"]]
            await acts_outbox.look(tx, request.headers, "mail.look", "conversation", seen)
        return json_response(listed)

    async def retry(self, request: web.Request) -> web.Response:
        """Allow mail to the addresses of a conversation again; cancelled steps stay so."""
        conversation_id = path_id(request, "address")
        freed = 0
        async with self.inbox.engine.begin() as tx:
            for row in await run(tx, "undeliverable_of", conversation=conversation_id):
                await steps.lock_address(tx, row.email)
                if (await run(tx, "try_again", email=row.email)).rowcount:
                    await report_address(tx, row.email, takes_mail=True)
                    freed += 1
            if not freed:
                raise Problem(404, detail="no such address")
            what = ("mail.retry", "conversation", conversation_id)
            await acts_outbox.record(tx, request, *what, freed)
        return json_response({"addresses": freed})

    async def rates(self, _: web.Request) -> web.Response:
        """Count the mails of the last day."""
        (row,) = await run.alone(self.inbox.engine, "rates")
        return json_response(row._asdict())
