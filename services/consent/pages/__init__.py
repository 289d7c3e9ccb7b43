"""What people read. Pages: plain HTML in Polish and English, no script, nothing from outside."""

import base64
import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from services.consent.consent import LANGUAGES

_FOLDER = files(__package__)
_TEXTS: dict[str, dict[str, Any]] = tomllib.loads(
    _FOLDER.joinpath("texts.toml").read_text(encoding="utf-8")
)
_STYLE = _FOLDER.joinpath("style.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HTML = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)
_PAGE = _HTML.from_string(_FOLDER.joinpath("page.html").read_text(encoding="utf-8"))
_MAIL = _HTML.from_string(_FOLDER.joinpath("mail.html").read_text(encoding="utf-8"))

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address of the page is the right to act
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
    "Vary": "Accept-Language",
}

QUOTED_LENGTH = 2_000
# What a mail program makes a link of: anybody may have written the wording, to anybody's address.
_LINK = re.compile(r"://|@|www\.|\w\.[^\W\d_]{2,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quote:
    text: str
    language: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One purpose on the page of preferences."""

    purpose: str
    name: str
    standing: str
    granted: bool
    withdraw: str
    wording: Quote | None = None


def render(
    name: str,
    language: str,
    *,
    site: str,
    address: str = "",
    token: str = "",
    wording: Quote | None = None,
    choices: Sequence[Choice] = (),
    purpose: str = "",
) -> str:
    """Render a page of texts.toml; with a token its button may be pressed.

    :param purpose: what the button is about, where it is not about everything
    """
    return _PAGE.render(
        text=_TEXTS[name][language],
        site=site,
        address=address,
        token=token,
        wording=wording,
        choices=choices,
        purpose=purpose,
        language=language,
        languages=[(code, _TEXTS["switch"][code]["name"]) for code in LANGUAGES],
        switch_label=_TEXTS["languages"][language]["name"],
        style=Markup(_STYLE),  # noqa: S704 - a file of ours
    )


def text(name: str, language: str) -> dict[str, str]:
    found: dict[str, str] = _TEXTS[name][language]
    return found


def mail(
    name: str, language: str, *, link: str, lifetime: timedelta, site: str = "", wording: str = ""
) -> dict[str, str]:
    """Give subject, plain text and HTML of a mail of texts.toml."""
    found = text(name, language)
    if not quotable(wording):
        wording = found["elsewhere"]
    values = {"site": site, "lifetime": _lifetime(lifetime, language)}
    paragraphs = [
        paragraph if paragraph in {"{link}", "{wording}"} else paragraph.format(**values)
        for paragraph in found["body"].strip().split("\n\n")
    ]
    quoted = "\n".join(f"> {line}" for line in wording.splitlines())
    plain = {"{link}": link, "{wording}": quoted}
    return {
        "subject": found["subject"],
        "text": "\n\n".join(plain.get(paragraph, paragraph) for paragraph in paragraphs) + "\n",
        "html": _MAIL.render(
            text=found, language=language, paragraphs=paragraphs, link=link, wording=wording
        ),
    }


def quotable(wording: str) -> bool:
    """Say whether a mail of ours may carry this; a page shows everything, and links nothing."""
    return len(wording) <= QUOTED_LENGTH and not _LINK.search(wording)


def _lifetime(lifetime: timedelta, language: str) -> str:
    units = text("lifetime", language)
    hours = lifetime // timedelta(hours=1)
    days, rest = divmod(hours, 24)
    if rest or days < 2:
        return units["hours"].format(n=hours)
    return units["days"].format(n=days)
