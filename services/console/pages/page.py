"""The pages: HTML in Polish and English that needs no script, and nothing from elsewhere."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from importlib.resources import files
from typing import Any
from uuid import uuid5

import jinja2
from aiohttp import hdrs, web
from markupsafe import Markup, escape

from libs.common import beside
from libs.domain import company
from libs.domain.scopes import PERSON
from services.console.gateway import Answer
from services.console.rules import LANGUAGES, Role, may
from services.console.store.sessions import Visitor
from services.console.texts import TEXTS, ZONE, moment, span

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATIC = files("services.console.pages").joinpath("static")
_SHEETS = ("vendor/open-props.css", "console.css")


_OTHERS = ("icon.svg", "live.js", "keys.js", "vendor/icons.svg")
_FILES: dict[str, bytes] = {}
"""By path. With their hash in it, a browser may keep them for a year."""


def dress(name: str = "Ostoja", style: str = company.style()) -> None:
    """Give the pages the company's name and accent."""
    sheet = style + "".join(_STATIC.joinpath(name).read_text(encoding="utf-8") for name in _SHEETS)
    made = {name.rpartition("/")[2]: _STATIC.joinpath(name).read_bytes() for name in _OTHERS}
    made["console.css"] = sheet.encode()
    paths = {
        name: f"/console/static/{hashlib.sha256(content).hexdigest()[:8]}.{name.split('.')[-1]}"
        for name, content in made.items()
    }
    _FILES.clear()
    _FILES.update((path, made[name]) for name, path in paths.items())
    _HTML.globals |= {"company": name, "files": paths, "zone": str(ZONE)}


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send no Origin
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
}
GROUPS: Mapping[str, Mapping[str, tuple[Role, ...]]] = beside.toml(__file__, "menu.toml")
MOST_IN_BAR = 4
BELOW = {"/console/undeliverable": "/console/followups"}
"""Pages that are not in the menu, by the one they belong to."""
_HTML = jinja2.Environment(
    loader=jinja2.PackageLoader("services.console.pages"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def _moment(at: str | datetime) -> datetime:
    return at if isinstance(at, datetime) else datetime.fromisoformat(at)


@jinja2.pass_context
def ago(context: jinja2.runtime.Context, at: str | datetime, words: str = "ago") -> Markup:
    """Return how long ago, or in what time, with the date on hover.

    :param words: the key of the sentence, with `{span}`
    """
    texts, then = context["t"], _moment(at)
    seconds = (datetime.now(UTC) - then).total_seconds()
    said = texts[words if seconds >= 0 or words != "ago" else "ahead"]
    html = Markup('<time datetime="{}" title="{}">{}</time>')
    text = said.format(span=span(texts, abs(seconds)))
    return html.format(f"{then.astimezone(UTC):%Y-%m-%dT%H:%MZ}", moment(then), text)


def tone(at: str, warn: int = 60, bad: int = 24 * 60) -> str:
    """Return how urgent something is that waits since then, by minutes."""
    minutes = (datetime.now(UTC) - _moment(at)).total_seconds() / 60
    return "bad" if minutes >= bad else "warn" if minutes >= warn else "ok"


def number(digits: str) -> str:
    """Return a Polish number as people write it, `+48 601 088 600`, and others as they are."""
    return re.sub(r"^(\+48)(\d{3})(\d{3})(\d{3})$", "\\1\xa0\\2\xa0\\3\xa0\\4", digits)


@jinja2.pass_context
def in_words(context: jinja2.runtime.Context, seconds: float) -> str:
    return span(context["t"], seconds)


@jinja2.pass_context
def start_in_words(context: jinja2.runtime.Context, start: str) -> str:
    """Return when somebody wants to begin: `2027-04` is "April 2027"."""
    texts, (day, _, named) = context["t"], start.partition(" ")
    if start == "asap":
        return str(texts["asap"])
    year, _, rest = day.partition("-")
    month, _, day_of_month = rest.partition("-")
    if not month.isdecimal() or named:
        return f"{texts.get(f'season_{named}', named)} {year}".strip()
    name = texts["months"].split()[int(month) - 1]
    return f"{day_of_month.lstrip('0')} {name} {year}".strip()


def by_day(shifts: Iterable[Mapping[str, str]]) -> dict[date, list[dict[str, Any]]]:
    """Return the parts of shifts by the day on which they are, here."""
    days: dict[date, list[dict[str, Any]]] = {}
    for shift in shifts:
        begins, ends = (datetime.fromisoformat(shift[at]).astimezone(ZONE) for at in TIMES)
        while begins < ends:
            midnight = datetime.combine(begins.date() + timedelta(days=1), time(), ZONE)
            until = min(ends, midnight)
            days.setdefault(begins.date(), []).append({**shift, "begins": begins, "ends": until})
            begins = until
    return days


TIMES = ("begins", "ends")
_HTML.filters |= {
    "by_day": by_day,
    "start": start_in_words,
    "at": lambda at: moment(_moment(at)),
    "ago": ago,
    "span": in_words,
    "tone": tone,
    "number": number,
    "thousands": lambda n: f"{n:,}".replace(",", "\xa0"),
    "address": lambda text: escape(text).replace("@", Markup("<wbr>@")),
    "of": uuid5,
}


def who(operator: str) -> str:
    """Return the name in `staff:<id> <name>`; for others, what they claimed."""
    return re.sub(rf"^{PERSON}\S+ ", "", operator)


_HTML.filters["who"] = who
dress()


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
        kind=template.removesuffix(".html"),
        language=language,
        title=texts[title],
        fault=fault and texts[fault],
        text=text and texts[text].format(**values),
        visitor=visitor,
        menu=_menu(visitor, request.path),
        here=request.path,
        live=live if request.method == hdrs.METH_GET else "",
        button=texts[button],
        **values,
    )
    return web.Response(text=shown, status=status, content_type="text/html", headers=HEADERS)


def redirect(path: str) -> web.Response:
    """Answer a form: a reload then shows the page, and sends nothing again."""
    return web.Response(status=303, headers={hdrs.LOCATION: path, **HEADERS})


def unavailable(
    request: web.Request, title: str, visitor: Visitor, answer: Answer, fault: str | None
) -> web.Response:
    """Say why there is nothing to show, or the result of an earlier form."""
    fault = fault or answer.fault
    return page(request, "message.html", title, visitor, status=answer.page_status, fault=fault)


def reachable(visitor: Visitor, link: str) -> bool:
    """Return whether it is one of this person's pages, or below one."""
    pages = (path for group in _pages(visitor).values() for path in group)
    return any(link.startswith(path) for path in pages if path != HOME)


HOME = "/console/"
Item = tuple[str, str, bool]
"""Of a menu: the path, the name, and whether the person is there."""


def _pages(visitor: Visitor | None) -> dict[str, list[str]]:
    """Return the pages that this person may open, by group."""
    roles = visitor.roles if visitor else ()
    found = {
        group: [HOME + name for name, needed in pages.items() if not needed or may(roles, *needed)]
        for group, pages in GROUPS.items()
    }
    return {group: pages for group, pages in found.items() if pages}


def _menu(visitor: Visitor | None, here: str) -> dict[str, list[Item]]:
    """Return the groups, the pages of the one that shows, what a phone's bar has, and the rest."""
    found, at = _pages(visitor), BELOW.get(here, here)
    menu: dict[str, list[Item]] = {"groups": [], "tabs": []}
    for name, pages in found.items():
        within = (path for path in pages if f"{at}/".startswith(path.rstrip("/") + "/"))
        shown = max(within, key=len, default=None) if name != "home" or here == HOME else None
        menu["groups"].append((pages[0], name, shown is not None))
        if shown and len(pages) > 1:
            menu["tabs"] = [(path, _name(path), path == shown) for path in pages]
    every = [(path, _name(path), path == here) for pages in found.values() for path in pages]
    menu["bar"] = (menu["groups"] if len(found) >= MOST_IN_BAR else every)[:MOST_IN_BAR]
    in_bar = {path for path, _, _ in menu["bar"]}
    others = [path for pages in found.values() if pages[0] not in in_bar for path in pages]
    menu["rest"] = [(path, _name(path), path == here) for path in others]
    return menu


def _name(path: str) -> str:
    return path.rpartition("/")[2] or "home"


async def static(request: web.Request) -> web.Response:
    if (body := _FILES.get(request.path)) is None:
        raise web.HTTPNotFound
    return web.Response(
        body=body,
        content_type=_TYPES[request.path.rpartition(".")[2]],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )
