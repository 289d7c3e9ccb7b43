"""The hosted form, a page without a script. It also answers a faulty plain form."""

import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from aiohttp import web

from libs.domain.forms import Form, origin_of
from services.gateway.door.cors import SECURITY_POLICY
from services.gateway.pages import TEMPLATES

_PAGE = TEMPLATES.get_template("intake/forms/page.html")
_TEXTS = tomllib.loads(Path(__file__).with_name("texts.toml").read_text(encoding="utf-8"))
WORDS: Mapping[str, Mapping[str, str]] = _TEXTS["page"]
FAULTS: Mapping[str, Mapping[str, str]] = _TEXTS["faults"]


def show(
    name: str,
    form: Form,
    language: str,
    today: date,
    *,
    status: int = 200,
    values: Mapping[str, str] | None = None,
    consents: Mapping[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
    message: str | None = None,
    key: str | None,
    issued: str | None,
    proof: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Render the form.

    :param key: None for a form on someone's own page, which has none: a new key would make its
        repetition another lead
    """
    context: dict[str, Any] = {
        "name": name,
        "form": form,
        "language": language,
        "wordings": form.shown(language, today),
        "values": values or {},
        "consents": consents or {},
        "faults": {at: FAULTS[language][fault] for at, fault in (faults or {}).items()},
        "message": message,
        "key": key,
        "issued": issued,
        "proof": proof,
        "words": WORDS[language],
    }
    # A redirect counts as form-action in Chromium.
    leads_to = " ".join(sorted({str(origin_of(url)) for url in form.success.values()}))
    return web.Response(
        text=_PAGE.render(context),
        status=status,
        content_type="text/html",
        headers={
            SECURITY_POLICY: (
                f"default-src 'none'; style-src 'unsafe-inline'; form-action 'self' {leads_to}; "
                "base-uri 'none'; frame-ancestors 'none'"
            ),
            # With no-referrer, browsers would send `Origin: null` with the form.
            "Referrer-Policy": "same-origin",
            **(headers or {}),
        },
    )
