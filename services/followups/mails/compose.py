"""Renders one follow-up as a mail: subject, text, HTML and the unsubscribe headers."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import product
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
        self.examples: dict[tuple[str, int], dict[str, dict[str, str]]] = {}
        """By sequence and step, in each language: subject and text for who said much."""
        for _, step, language, mail in self.samples("a@example.com"):
            shown = self.examples.setdefault(step, {})
            shown[language] = {name: mail[name] for name in ("subject", "text")}

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

    def samples(self, address: str) -> Iterator[tuple[str, tuple[str, int], str, dict[str, Any]]]:
        """Yield each step in each language for each of SAMPLES: a name of it, its sequence and
        number, its language and the payload.

        :raises SystemExit: names the template that does not render
        """
        for sequence, steps in self._config.sequences.items():
            for number, step in enumerate(steps, 1):
                for language, (known, facts) in product(LANGUAGES, SAMPLES.items()):
                    to = Recipient(uuid.uuid4(), address, language, facts)
                    try:
                        mail = self.render(step, to, datetime.now(UTC))
                    except Exception as error:  # noqa: BLE001 - a template may raise anything
                        raise SystemExit(
                            f"cannot start, template {step.template} ({language}) of sequence "
                            f"{sequence}: {type(error).__name__}: {error}"
                        ) from None
                    name = f"{sequence}-{number}.{language}.{known}"
                    yield name, (sequence, number), language, mail
