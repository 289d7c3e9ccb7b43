"""The mails with links that confirm an opt-in or an erasure, in Polish and English."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jinja2

from libs.common import beside
from libs.domain.company import Company
from libs.domain.signed_links import Claims, Tokens
from services.consent.rules import Agreement, LinkMail, wording_hash
from services.consent.settings import ConsentSettings

TEXTS: dict[str, dict[str, dict[str, str]]] = beside.toml(__file__, "texts.toml")
HTML = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)
_MAIL = HTML.from_string(beside.text(__file__, "mail.html"))
_FOOTER = HTML.overlay(autoescape=False).from_string(
    "\n--\n{{ company.name }}\n{{ about.controller }} {{ company.legal_name }}, "
    "{{ company.address }}, NIP {{ company.nip }}\n{{ about.contact }} {{ company.contacts }}\n"
    "{{ about.privacy }}: {{ company.privacy_url }}\n"
)

MakeMail = Callable[[str, UUID], dict[str, Any]]
"""Makes the mail to this address, with a link that confirms the request with this id."""


@dataclass(frozen=True)
class LinkMails:
    tokens: Tokens
    settings: ConsentSettings

    def erasure(self, language: str) -> MakeMail:
        def make(email: str, erasure_id: UUID) -> dict[str, Any]:
            # For one request only: a used or older link cannot start another erasure.
            link = self._link("erasure/confirm", email, str(erasure_id), LinkMail.ERASURE)
            lifetime = timedelta(hours=self.settings.erasure_link_hours)
            company = self.settings.company
            return {"to": email} | render(
                "erasure_mail", language, company=company, link=link, lifetime=lifetime
            )

        return make

    def opt_in(self, purpose: str, agreement: Agreement, language: str) -> MakeMail:
        def make(email: str, opt_in_id: UUID) -> dict[str, Any]:
            about = f"{purpose}.{opt_in_id}.{wording_hash(agreement.text)}"
            return {"to": email} | render(
                "opt_in_mail",
                language,
                company=self.settings.company,
                link=self._link("opt-in/confirm", email, about, LinkMail.OPT_IN),
                lifetime=timedelta(days=self.settings.opt_in_link_days),
                place=TEXTS["place"][language][agreement.place].format(site=self.settings.site),
                wording=agreement.text,
            )

        return make

    def _link(self, path: str, email: str, about: str, action: LinkMail) -> str:
        token = self.tokens.sign(email, about, action, datetime.now(UTC))
        return f"{self.settings.public_base_url.rstrip('/')}/{path}?token={token}"


def read_opt_in(claims: Claims) -> tuple[str, UUID, str]:
    """Read purpose, id and the wording's hash from an opt-in link."""
    purpose, opt_in_id, hashed = claims.purpose.split(".")  # authentic, so well-formed
    return purpose, UUID(opt_in_id), hashed


def render(
    name: str,
    language: str,
    *,
    company: Company,
    link: str,
    lifetime: timedelta,
    place: str = "",
    wording: str = "",
) -> dict[str, Any]:
    """Return subject, plain text, HTML and headers of a mail of texts.toml.

    :param wording: a published one: anyone may enter any other text with anyone's address
    """
    text, about = TEXTS[name][language], TEXTS["company"][language]
    values = {"place": place, "lifetime": _lifetime(lifetime, language)}
    paragraphs = [
        paragraph if paragraph in {"{link}", "{wording}"} else paragraph.format(**values)
        for paragraph in text["body"].strip().split("\n\n")
    ]
    quoted = "\n".join(f"> {line}" for line in wording.splitlines())
    plain = {"{link}": link, "{wording}": quoted}
    return {
        "subject": text["subject"],
        "text": "\n\n".join(plain.get(paragraph, paragraph) for paragraph in paragraphs)
        + "\n"
        + _FOOTER.render(company=company, about=about),
        "html": _MAIL.render(
            text=text,
            language=language,
            paragraphs=paragraphs,
            link=link,
            wording=wording,
            company=company,
            about=about,
        ),
        "headers": {"Reply-To": company.contact},
    }


def _lifetime(lifetime: timedelta, language: str) -> str:
    units = TEXTS["lifetime"][language]
    hours = lifetime // timedelta(hours=1)
    days, rest = divmod(hours, 24)
    if rest or days < 2:
        return units["hours"].format(n=hours)
    return units["days"].format(n=days)
