"""The hosted form, a page without a script. It also answers a faulty plain form."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from aiohttp import web

from libs.common import beside
from libs.domain import mistyped
from libs.domain.forms import Form, origin_of
from services.gateway.door.cors import SECURITY_POLICY
from services.gateway.pages import TEMPLATES

_PAGE = TEMPLATES.get_template("intake/forms/page.html")
_TEXTS = beside.toml(__file__, "texts.toml")
WORDS: Mapping[str, Mapping[str, str]] = _TEXTS["page"]
FAULTS: Mapping[str, Mapping[str, str]] = _TEXTS["faults"]


_ABSENT: Mapping[str, Any] = dict.fromkeys(("message", "proof", "sure")) | {
    "values": {},
    "consents": {},
}


def show(
    name: str,
    form: Form,
    language: str,
    today: date,
    *,
    status: int = 200,
    faults: Mapping[str, str] = {},
    headers: Mapping[str, str] = {},
    **shown: Any,
) -> web.Response:
    """Render the form.

    :param shown: what the template names: `values`, `consents`, `message`, `issued`, `proof`;
        `sure`, the address that a fault `slip` asks about; and `key`: None for a form on someone's
        own page, which has none: a new key would make its repetition another lead
    """
    told = FAULTS[language]
    meant = mistyped.suggestion(shown.get("sure") or "")
    context = {**_ABSENT, **shown}
    context |= {"name": name, "form": form, "language": language, "words": WORDS[language]}
    context["wordings"] = form.shown(language, today)
    if "contact" in faults.values():  # either would do: say so at both
        either = (field for field in form.fields if field.fact in {"email", "phone"})
        faults = {**dict.fromkeys((field.name for field in either), "contact"), **faults}
    context["faults"] = {at: told[fault].format(address=meant) for at, fault in faults.items()}
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
            **headers,
        },
    )
