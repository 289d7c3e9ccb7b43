"""The mail port: the part of Mailpit's REST API that the tests use, and a page to read mails."""

import asyncio
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import ClientError, ClientSession, hdrs, web
from pydantic import Field

from deploy.sandbox import comes_back
from deploy.sandbox.mail import Mail
from deploy.sandbox.recorder import MIB, Recorder
from libs.common.http.application import Model, Problem, json_response, parse_query
from libs.common.http.application import create_app as create_web_app

PAGE = 50
MAX_LIMIT = 1000
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# A mail is untrusted HTML: no scripts, forms or fetches; links open in a new tab.
_MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'self'"
)


PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("pages")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
)


class Page(Model):
    start: int = Field(0, ge=0, le=1_000_000, strict=False)
    limit: int = Field(PAGE, ge=0, le=MAX_LIMIT, strict=False)


def create_app(recorder: Recorder, gateway: str, service_key: str) -> web.Application:
    """:param service_key: of the gateway, to which a mail comes back; if empty, none does"""
    app = create_web_app(internal_key=None, max_body=MIB)
    mail = _MailApi(recorder, f"{gateway}/api/mail/inbound", service_key)
    app.router.add_get("/api/v1/messages", mail.messages)
    app.router.add_delete("/api/v1/messages", mail.delete)
    app.router.add_get("/api/v1/message/{id}", mail.message)
    app.router.add_get("/api/v1/message/{id}/raw", mail.raw)
    app.router.add_get("/", mail.list_page)
    app.router.add_get("/view/{id}.html", mail.html)
    app.router.add_get("/view/{id}", mail.mail_page)
    app.router.add_post(f"/view/{{id}}/{{kind:{'|'.join(comes_back.KINDS)}}}", mail.comes_back)
    return app


class _MailApi:
    def __init__(self, recorder: Recorder, inbound: str, service_key: str) -> None:
        self._mailbox = recorder.mailbox
        self._inbound, self._key = inbound, service_key

    def _find(self, request: web.Request) -> Mail:
        if (mail := self._mailbox.get(request.match_info["id"])) is None:
            raise Problem(404, detail="no such message")
        return mail

    async def _newest(self, page: Page) -> list[dict[str, Any]]:
        newest = islice(self._mailbox.newest_first(), page.start, page.start + page.limit)
        found = list(newest)
        # In a thread, because parsing a thousand mails must not delay the providers.
        return await asyncio.to_thread(
            lambda: [{**each.summary, "Read": each.read} for each in found]
        )

    async def messages(self, request: web.Request) -> web.Response:
        found = await self._newest(parse_query(request, Page))
        return json_response({"total": len(self._mailbox), "messages": found})

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
        page = parse_query(request, Page)
        mails, total = await self._newest(page), len(self._mailbox)
        return self._page("list.html", mails=mails, start=page.start, total=total, page=PAGE)

    async def mail_page(self, request: web.Request, said: str = "") -> web.Response:
        mail = self._find(request)
        mail.read = True
        kinds = comes_back.KINDS if self._key else ()
        return self._page("mail.html", mail=mail.message(), kinds=kinds, said=said)

    async def comes_back(self, request: web.Request) -> web.Response:
        """Give Ostoja what a mail server would; nobody else's page knows the mail's id."""
        mail = self._find(request)
        back = comes_back.mail(request.match_info["kind"], mail.raw, mail.sender)
        headers = {"X-API-KEY": self._key, hdrs.CONTENT_TYPE: "message/rfc822"}
        try:
            async with (
                ClientSession() as session,
                session.post(self._inbound, data=back, headers=headers) as answer,
            ):
                said = await answer.text()
        except ClientError as error:
            said = str(error)
        return await self.mail_page(request, said)

    async def html(self, request: web.Request) -> web.Response:
        # <base> works anywhere, and at the end it does not come before the doctype.
        text = self._find(request).message()["HTML"] + '<base target="_blank">'
        return html_response(text, _MAIL_POLICY)

    def _page(self, template: str, **values: Any) -> web.Response:
        return html_response(PAGES.get_template(template).render(values), PAGE_POLICY)


def html_response(text: str, policy: str) -> web.Response:
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
