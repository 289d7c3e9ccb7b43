"""The pages: plain HTML in Polish and English, without scripts or external resources."""

import base64
import hashlib
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup

from libs.common import beside
from libs.domain.company import Company, style
from services.consent import mails
from services.consent.rules import LANGUAGES

TEXTS: dict[str, dict[str, Any]] = beside.toml(__file__, "texts.toml")
_STYLE = beside.text(__file__, "style.css")
_PAGE = mails.HTML.from_string(beside.text(__file__, "page.html"))
ZONE = ZoneInfo("Europe/Warsaw")
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # whoever has the URL may act
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
    "Vary": "Accept-Language",
}


def render(name: str, language: str, *, company: Company, **shown: Any) -> str:
    """Render a page of texts.toml.

    :param shown: `email`; `token`, which buttons need; `wording`, with its text and language;
        `choices`; `purpose`: of the button, empty for all; `kept_until`: the date until which an
        erasure leaves a hash of the address
    """
    text = TEXTS[name][language]
    usual = {"email": "", "token": "", "wording": None, "choices": (), "purpose": ""}
    return _PAGE.render(
        name=name,
        text=text | {"body": text["body"].replace("{kept_until}", shown.pop("kept_until", ""))},
        company=company,
        about=mails.TEXTS["company"][language],
        language=language,
        languages=[(code, TEXTS["switch"][code]["name"]) for code in LANGUAGES],
        switch_label=TEXTS["languages"][language]["name"],
        style=Markup(style(company.accent) + _STYLE),  # noqa: S704 - a file of ours
        **usual | shown,
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
