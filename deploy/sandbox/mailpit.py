"""The mail port: the part of Mailpit's REST API that the tests use, and a page to read mails."""

import asyncio
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import hdrs, web
from pydantic import Field

from deploy.sandbox.behaviour import asked
from deploy.sandbox.mail import Mail
from deploy.sandbox.recorder import MIB, Recorder
from libs.common.http.application import Model, Problem, json_response
from libs.common.http.application import create_app as create_web_app

PAGE = 50
MAX_LIMIT = 1000
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A mail is untrusted HTML: no scripts, forms or fetches; links open in a new tab.
_MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'self'"
)


class Page(Model):
    start: int = Field(0, ge=0, le=1_000_000)
    limit: int = Field(PAGE, ge=0, le=MAX_LIMIT)


def create_app(recorder: Recorder) -> web.Application:
    app = create_web_app(internal_key=None, max_body=MIB)
    mail = _MailApi(recorder)
    app.router.add_get("/api/v1/messages", mail.messages)
    app.router.add_delete("/api/v1/messages", mail.delete)
    app.router.add_get("/api/v1/message/{id}", mail.message)
    app.router.add_get("/api/v1/message/{id}/raw", mail.raw)
    app.router.add_get("/", mail.list_page)
    app.router.add_get("/view/{id}.html", mail.html)
    app.router.add_get("/view/{id}", mail.mail_page)
    return app


class _MailApi:
    def __init__(self, recorder: Recorder) -> None:
        self._mailbox = recorder.mailbox
        self._pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).with_name("pages")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )

    def _find(self, request: web.Request) -> Mail:
        if (mail := self._mailbox.get(request.match_info["id"])) is None:
            raise Problem(404, detail="no such message")
        return mail

    async def _slice(self, start: int, limit: int) -> list[dict[str, Any]]:
        newest = list(self._mailbox.newest_first())[start : start + limit]
        # In a thread, because parsing a thousand mails must not delay the providers.
        return await asyncio.to_thread(lambda: [mail.summary() for mail in newest])

    async def messages(self, request: web.Request) -> web.Response:
        page = asked(request, Page)
        found = await self._slice(page.start, page.limit)
        unread = sum(1 for mail in self._mailbox.newest_first() if not mail.read)
        counts = {"total": len(self._mailbox), "unread": unread, "count": len(found)}
        return json_response({**counts, "start": page.start, "messages": found})

    async def delete(self, _: web.Request) -> web.Response:
        self._mailbox.clear()
        return web.Response(text="ok")

    async def message(self, request: web.Request) -> web.Response:
        mail = self._find(request)
        mail.read = True
        return json_response(mail.message())

    async def raw(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._find(request).raw,
            headers={hdrs.CONTENT_TYPE: "text/plain; charset=utf-8"},
        )

    async def list_page(self, request: web.Request) -> web.Response:
        start = asked(request, Page).start
        return self._page(
            "list.html",
            mails=await self._slice(start, PAGE),
            start=start,
            total=len(self._mailbox),
            page=PAGE,
        )

    async def mail_page(self, request: web.Request) -> web.Response:
        mail = self._find(request)
        mail.read = True
        return self._page("mail.html", mail=mail.message(), created=mail.summary()["Created"])

    async def html(self, request: web.Request) -> web.Response:
        # <base> works anywhere, and at the end it does not come before the doctype.
        text = self._find(request).message()["HTML"] + '<base target="_blank">'
        return _html(text, _MAIL_POLICY)

    def _page(self, template: str, **values: Any) -> web.Response:
        return _html(self._pages.get_template(template).render(values), _PAGE_POLICY)


def _html(text: str, policy: str) -> web.Response:
    return web.Response(
        text=text,
        content_type="text/html",
        charset="utf-8",
        headers={
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )
