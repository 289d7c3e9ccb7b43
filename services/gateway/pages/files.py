"""Errors as HTML pages, for people who follow a mailed link or send a form."""

import re
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from libs.common import beside
from libs.common.http import plain_form
from libs.common.http.application import media_type
from services.gateway.door.access import contact_url
from services.gateway.pages import TEMPLATES

PATHS = frozenset({"/chat", "/unsubscribe", "/preferences", "/opt-in/confirm", "/erasure/confirm"})
FORMS = "/forms/"
CONSOLE = re.compile("/console(/|$)")
LEADS = "/api/leads"
_PAGE = TEMPLATES.get_template("pages/errors.html")
_TEXTS: dict[str, dict[str, Any]] = beside.toml(__file__, "errors.toml")


@web.middleware
async def errors_as_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    if response.status < 400:
        return response
    if not _is_page(request) or response.content_type != "application/problem+json":
        return response
    page = web.Response(
        text=_page(request, response.status), status=response.status, content_type="text/html"
    )
    for name in (hdrs.RETRY_AFTER, hdrs.ALLOW):
        if name in response.headers:
            page.headers[name] = response.headers[name]
    return page


def _is_page(request: web.Request) -> bool:
    return (
        request.path in PATHS
        or request.path.startswith(FORMS)
        or CONSOLE.match(request.path) is not None
        or (request.path == LEADS and media_type(request.headers) in plain_form.TYPES)
    )


def _page(request: web.Request, status: int) -> str:
    language, text = language_of(request), _text(request, status)
    contact = contact_url(request, language) if text == "too_many" else None
    text = "no_chat" if contact else text  # no other page is charged to a budget
    console = CONSOLE.match(request.path)
    here = None if text in {"not_taken", "not_sent"} else request.rel_url.raw_path_qs
    posted = request.method == hdrs.METH_POST
    return _PAGE.render(
        language=language,
        text=_TEXTS[text][language],
        again=_TEXTS["again"][language],
        leads_to="/console/" if console else here,
        contact=contact,
        # What was posted to these is not known here: their pages ask again.
        repeats=posted and not console and request.path not in {"/preferences", "/chat"},
    )


def _text(request: web.Request, status: int) -> str:
    busy = status >= web.HTTPInternalServerError.status_code
    limited = status == web.HTTPTooManyRequests.status_code
    if request.path.startswith(FORMS) and status == web.HTTPNotFound.status_code:
        return "not_taken"
    if request.path == LEADS:
        # Its values are not known here. A form that was read is shown again (forms/pages.py).
        slow = status == web.HTTPRequestTimeout.status_code
        return "not_sent" if busy or limited or slow else "not_taken"
    if limited:
        return "too_many"
    if CONSOLE.match(request.path):
        return "no_console" if busy else "no_page"
    if not busy:
        return "not_read"
    return "not_confirmed" if request.method == hdrs.METH_POST else "not_shown"


def language_of(request: web.Request, parameter: str = "lang") -> str:
    chosen = (
        request.query.get(parameter) or request.headers.get(hdrs.ACCEPT_LANGUAGE, "").lower()[:2]
    )
    return "en" if chosen == "en" else "pl"
