"""The pages: HTML in Polish and English that needs no script, and nothing from elsewhere."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any

import jinja2
from aiohttp import hdrs, web

from libs.domain.scopes import PERSON
from services.console.gateway import Answer
from services.console.rules import ADMIN, LANGUAGES, ON_CALL, OPS, PRIVACY, SALES, Role, may
from services.console.store.sessions import Visitor
from services.console.texts import TEXTS, moment

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = {
    name: files("services.console.pages").joinpath(f"static/{name}").read_bytes()
    for name in ("console.css", "icon.svg", "live.js")
}
_PATHS = {
    f"/console/static/{hashlib.sha256(content).hexdigest()[:16]}-{name}": name
    for name, content in _FILES.items()
}
"""With the hash in the name, a browser may keep a file for a year."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send no Origin
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
}
Shown = Callable[..., Awaitable[web.Response]]
"""A page that may also answer a form, with a `fault` and a `status`."""
_AREAS: Mapping[str, tuple[Role, ...]] = {
    **dict.fromkeys(("leads", "followups"), SALES),
    "cases": OPS,
    **dict.fromkeys(("alerts", "targets", "limits", "silences", "oncall"), ON_CALL),
    "person": PRIVACY,
    **dict.fromkeys(("keys", "staff"), ADMIN),
    "actions": ADMIN + PRIVACY,
}
"""The menu: of each item the path, a key of texts.toml, and the roles that see it."""
_HTML = jinja2.Environment(
    loader=jinja2.PackageLoader("services.console.pages"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


_HTML.filters["at"] = lambda text: moment(datetime.fromisoformat(text))


def who(operator: str) -> str:
    """Return the name in `staff:<id> <name>`; for others, what they claimed."""
    return re.sub(rf"^{PERSON}\S+ ", "", operator)


_HTML.filters["who"] = who


def language_of(request: web.Request, visitor: Visitor | None) -> str:
    if visitor is not None:
        return visitor.language
    given = request.headers.get(hdrs.ACCEPT_LANGUAGE, "").lower()[:2]
    return "en" if given == "en" else LANGUAGES[0]


def page(
    request: web.Request,
    template: str,
    title: str,
    visitor: Visitor | None = None,
    *,
    status: int = 200,
    fault: str | None = None,
    button: str = "confirm_button",
    text: str | None = None,
    live: str = "",
    **values: Any,
) -> web.Response:
    """Render a template.

    :param title, fault, text, button: keys of texts.toml
    :param live: after which changes it refreshes itself (live.py); not the answer to a form
    """
    language = language_of(request, visitor)
    texts = TEXTS[language]
    shown = _HTML.get_template(template).render(
        t=texts,
        language=language,
        title=texts[title],
        fault=fault and texts[fault],
        text=text and texts[text].format(**values),
        files={name: path for path, name in _PATHS.items()},
        visitor=visitor,
        links=[(path, texts[key]) for path, key in _links(visitor)],
        here=request.path,
        live=live if request.method == hdrs.METH_GET else "",
        button=texts[button],
        **values,
    )
    return web.Response(text=shown, status=status, content_type="text/html", headers=HEADERS)


def redirect(path: str) -> web.Response:
    """Answer a form: a reload then shows the page, and sends nothing again."""
    return web.Response(status=303, headers={hdrs.LOCATION: path, **HEADERS})


async def answered(
    request: web.Request, visitor: Visitor, answer: Answer, show: Shown, path: str, **named: str
) -> web.Response:
    """Answer a form by what the gateway said: go to `path`, or show the page with the fault.

    :param named: what this page calls a fault instead
    """
    if answer.ok:
        return redirect(path)
    fault = named.get(str(answer.fault), answer.fault)
    return await show(request, visitor, fault=fault, status=answer.page_status)


def unavailable(
    request: web.Request, title: str, visitor: Visitor, answer: Answer, fault: str | None
) -> web.Response:
    """Say why there is nothing to show, or the result of an earlier form."""
    fault = fault or answer.fault
    return page(request, "message.html", title, visitor, status=answer.page_status, fault=fault)


def reachable(visitor: Visitor, link: str) -> bool:
    """Return whether it is one of this person's pages, or below one."""
    return any(link.startswith(path) for path, _ in _links(visitor)[1:])


def _links(visitor: Visitor | None) -> list[tuple[str, str]]:
    roles = visitor.roles if visitor else ()
    found = [name for name, needed in _AREAS.items() if may(roles, *needed)]
    return [("/console/", "home"), *((f"/console/{name}", name) for name in [*found, "me"])]


async def static(request: web.Request) -> web.Response:
    if (name := _PATHS.get(request.path)) is None:
        raise web.HTTPNotFound
    return web.Response(
        body=_FILES[name],
        content_type=_TYPES[name.rpartition(".")[2]],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )
