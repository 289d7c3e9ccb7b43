"""Renders one follow-up as a mail: subject, text, HTML and the unsubscribe headers."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from css_inline import CSSInliner
from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from libs.domain.signed_links import Tokens
from services.followups.config import LANGUAGES, Config, Step
from services.followups.mails.marks import Marks
from services.followups.reading.name import addressed
from services.followups.rules import fact_texts
from services.followups.rules.facts import Facts, person_name

SUBJECT_LENGTH = 200
SAMPLES = {
    "little": Facts(),
    "some": Facts(email="a@example.com", area=80.5, wish="kuchnia & łazienka"),
    "much": Facts(
        email="a@example.com",
        phone="+48600700800",
        name="Żaneta O'Hara",
        area=80.5,
        budget=250_000,
        currency="PLN",
        start="2027-03",
        wish="kuchnia & łazienka",
    ),
}
"""Every mail is rendered for these leads at start, so that a broken template stops it."""


@dataclass(frozen=True, slots=True)
class Recipient:
    followup_id: uuid.UUID
    email: str
    language: str
    facts: Facts


def _greeted(name: str, language: str) -> str | None:
    """Return the name for the greeting, in Polish in the vocative; None if that is not certain."""
    known = person_name(name)
    return addressed(known) if known and language == "pl" else known


class Mails:
    """Renders the configured steps. The constructor renders each once per language as a check.

    :raises SystemExit: names the template that does not render
    """

    def __init__(
        self, config: Config, tokens: Tokens, public_base_url: str, marks: Marks | None = None
    ) -> None:
        """:param marks: of the return path; None: the domain has none of its own"""
        self._config = config
        self._tokens = tokens
        self._marks = marks
        self._base_url = public_base_url.rstrip("/")
        self._domain = urlsplit(public_base_url).hostname or "localhost"
        # Sandboxed: a template is configuration, not code. An undefined name is an error.
        self._html = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader(config.templates), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
            auto_reload=False,  # send exactly what was checked at start
        )  # fmt: skip
        self._text = self._html.overlay(autoescape=False)
        self._subject = cache(self._text.from_string)  # compiling takes a millisecond
        # Mail programs drop style sheets, so they are inlined. Never fetch one that is linked.
        self._styles = CSSInliner(load_remote_stylesheets=False)
        self._check()

    def render(self, step: Step, to: Recipient, now: datetime) -> dict[str, Any]:
        """Return the payload of the alert that carries this mail."""
        token = self._token(to.email, now)
        link = f"{self._base_url}/unsubscribe?token={token}"
        values = {
            **self._values(to, link),
            "preferences_url": f"{self._base_url}/preferences?token={token}",
        }
        name = f"{step.template}.{to.language}"
        subject = self._subject(step.subject[to.language]).render(
            company=values["company"], site=values["site"]
        )
        unsubscribe, return_path = f"<{link}>", {}
        if self._marks is not None:
            mailto = self._marks.address("u", to.followup_id)
            unsubscribe += f", <mailto:{mailto}?subject=unsubscribe>"
            return_path = {"return_path": self._marks.address("b", to.followup_id)}
        return return_path | {
            "to": to.email,
            "subject": " ".join(subject.split())[:SUBJECT_LENGTH],
            "text": self._text.get_template(f"{name}.txt").render(values),
            "html": self._styles.inline(self._html.get_template(f"{name}.html").render(values)),
            "headers": {
                # A step keeps its Message-ID however often it is rendered.
                "Message-ID": f"<{to.followup_id}@{self._domain}>",
                "List-Unsubscribe": unsubscribe,
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",  # RFC 8058
                "Reply-To": self._config.company.contact,
            },
        }

    def _token(self, email: str, now: datetime) -> str:
        return self._tokens.sign(subject=email, purpose="marketing", action="unsubscribe", now=now)

    def _values(self, to: Recipient, link: str) -> Mapping[str, Any]:
        facts, language = to.facts, to.language
        return {
            "company": self._config.company.name,
            "accent": self._config.company.accent,
            "about": self._config.company,
            "site": self._config.site,
            "unsubscribe_url": link,
            # The only visitor input in a mail: anyone may chat under anyone's address.
            "name": facts.name and _greeted(facts.name, language),
            "area": facts.area and fact_texts.describe_area(facts.area, language),
            "budget": facts.budget
            and fact_texts.describe_budget(facts.budget, facts.currency, language),
            "start": facts.start and fact_texts.describe_start(facts.start, language),
        }

    def _check(self) -> None:
        for sequence, steps in self._config.sequences.items():
            for step in steps:
                for language in LANGUAGES:
                    for facts in SAMPLES.values():
                        to = Recipient(uuid.UUID(int=0), "a@example.com", language, facts)
                        self._render_or_exit(sequence, step, to)

    def _render_or_exit(self, sequence: str, step: Step, to: Recipient) -> None:
        try:
            self.render(step, to, datetime.fromtimestamp(0).astimezone())
        except Exception as error:  # noqa: BLE001 - a template may raise anything
            raise SystemExit(
                f"cannot start, template {step.template} ({to.language}) of sequence {sequence}: "
                f"{type(error).__name__}: {error}"
            ) from None
