"""The pages: plain HTML in Polish and English, without scripts or external resources."""

import base64
import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from markupsafe import Markup

from libs.domain.company import Company, Wording, style
from services.consent import mails
from services.consent.rules import LANGUAGES

_FOLDER = files(__package__)
_TEXTS: dict[str, dict[str, Any]] = tomllib.loads(
    _FOLDER.joinpath("texts.toml").read_text(encoding="utf-8")
)
_STYLE = _FOLDER.joinpath("style.css").read_text(encoding="utf-8")
_HTML = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)
_PAGE = _HTML.from_string(_FOLDER.joinpath("page.html").read_text(encoding="utf-8"))
ZONE = ZoneInfo("Europe/Warsaw")
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # whoever has the URL may act
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
    "Vary": "Accept-Language",
}


@dataclass(frozen=True, slots=True)
class Quote:
    text: str
    language: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One purpose on the preferences page."""

    purpose: str
    name: str
    state: str
    granted: bool
    wording: Quote | None = None
    offer: Wording | None = None
    """What may be agreed to here instead."""
    paused: str = ""
    """The date until which nothing is sent."""
    days: int | None = None
    """At most one mail in so many days."""


def render(
    name: str,
    language: str,
    *,
    company: Company,
    email: str = "",
    token: str = "",
    wording: Quote | None = None,
    choices: Sequence[Choice] = (),
    purpose: str = "",
    kept_until: str = "",
) -> str:
    """Render a page of texts.toml; buttons need a token.

    :param kept_until: the date until which an erasure leaves a hash of the address
    :param purpose: the purpose of the button; None: all purposes
    """
    text = _TEXTS[name][language]
    return _PAGE.render(
        text=text | {"body": text["body"].replace("{kept_until}", kept_until)},
        company=company,
        about=mails.TEXTS["company"][language],
        email=email,
        token=token,
        wording=wording,
        choices=choices,
        purpose=purpose,
        language=language,
        languages=[(code, _TEXTS["switch"][code]["name"]) for code in LANGUAGES],
        switch_label=_TEXTS["languages"][language]["name"],
        style=Markup(style(company.accent) + _STYLE),  # noqa: S704 - a file of ours
    )


def headers(company: Company) -> dict[str, str]:
    """Return the headers of a page, whose policy allows this company's style."""
    digest = hashlib.sha256((style(company.accent) + _STYLE).encode()).digest()
    policy = (
        f"default-src 'none'; style-src 'sha256-{base64.b64encode(digest).decode()}'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    return {**HEADERS, "Content-Security-Policy": policy}


def date(at: datetime, language: str) -> str:
    local = at.astimezone(ZONE)
    return f"{local:%d.%m.%Y}" if language == "pl" else f"{local.day} {local:%B %Y}"


def text(name: str, language: str) -> dict[str, str]:
    found: dict[str, str] = _TEXTS[name][language]
    return found
