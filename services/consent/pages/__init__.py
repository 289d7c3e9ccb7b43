"""What people read. Pages: plain HTML in Polish and English, no script, nothing from outside."""

import base64
import hashlib
import tomllib
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
_PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    _FOLDER.joinpath("page.html").read_text(encoding="utf-8")
)

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address of the page is the right to act
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Vary": "Accept-Language",
}


def render(name: str, language: str, *, address: str = "", token: str = "") -> str:
    """Render a page of texts.toml; with a token its button may be pressed."""
    return _PAGE.render(
        text=_TEXTS[name][language],
        address=address,
        token=token,
        language=language,
        others=[
            (other, _TEXTS["switch"][other]["name"]) for other in LANGUAGES if other != language
        ],
        style=Markup(_STYLE),  # noqa: S704 - a file of ours
    )


def mail(name: str, language: str, *, link: str) -> dict[str, str]:
    """Give subject and text of a mail of texts.toml; plain text, for it must reach everybody."""
    text = _TEXTS[name][language]
    return {"subject": text["subject"], "text": text["body"].format(link=link)}
