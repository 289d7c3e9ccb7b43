"""forms.toml: the lead forms that web pages show, read by gateway and followups.

No key makes a consent required or ticked beforehand (GDPR, Art. 7(4)), and none contains a regular
expression, which a visitor could make run for minutes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from libs.common.process.config_file import FaultError
from libs.domain import email_address, phone_number, shipped
from libs.domain.company import PAIR, CompanyFile, Section, Wording, split_pair, twice
from libs.domain.limits import Limit

LANGUAGES = ("pl", "en")
MOST_FIELDS = 40
SHORT, LONG = 200, 4000
"""Characters of a field, and of a textarea."""
MARKETING = "marketing"
SANDBOX = "sandbox"
"""Among the origins of a form: the web site that the sandbox shows, at whatever port."""
_AGREED_SINCE = datetime(2018, 1, 1, tzinfo=UTC)
FindWording = Callable[[str], Wording | None]

Language = Literal["pl", "en"]
FieldType = Literal[
    "text", "textarea", "email", "phone", "number", "money", "select", "date", "hidden"
]
Fact = Literal["email", "phone", "name", "wish", "area", "budget", "start"]
_TYPES_OF: dict[str, tuple[str, ...]] = {
    "email": ("email",),
    "phone": ("phone",),
    "name": ("text",),
    "wish": ("text", "textarea", "select", "hidden"),
    "area": ("number", "text", "select"),
    "budget": ("money", "number", "text", "select"),
    "start": ("date", "text", "select"),
}
_RESERVED = {
    *("form", "form_version", "language", "key", "issued", "proof", "session_id", "page"),
    "notice_version",
    "sure",
}
"""Names that a form posts beside its fields."""
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_DIGIT = re.compile(r"\d")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")


def is_possible(agreed_at: datetime) -> bool:
    """Return whether an imported agreement of this time counts before it is confirmed."""
    return _AGREED_SINCE <= agreed_at <= datetime.now(UTC)


def _in_each_language(texts: dict[str, Any]) -> dict[str, Any]:
    if set(texts) != set(LANGUAGES):
        raise ValueError(f"needs each of {', '.join(LANGUAGES)}")
    return texts


def _shown_unchanged(text: str) -> str:
    # HTML shows runs of white space as one space; the hash is of what a person reads.
    if text != " ".join(text.split()):
        raise ValueError("must be one line without double spaces")
    return text


def _an_origin(text: str) -> str:
    if text != SANDBOX and not _ORIGIN.fullmatch(text):
        raise ValueError(f"{text!r} is not an origin like https://www.example.com")
    return text


def _a_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not _ORIGIN.fullmatch(origin_of(text) or ""):
        raise ValueError(f"{text!r} is not a URL like https://www.example.com/thank-you")
    return text


def origin_of(url: str) -> str | None:
    """Return scheme, host and port of an http URL, as browsers send them in `Origin`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in {None, usual} else "")


Line = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_shown_unchanged)]
Texts = Annotated[dict[str, Line], AfterValidator(_in_each_language)]
Urls = Annotated[
    dict[
        str, Annotated[str, Field(max_length=500, pattern=r"^[^\s<>\"]+$"), AfterValidator(_a_url)]
    ],
    AfterValidator(_in_each_language),
]
Origin = Annotated[str, AfterValidator(_an_origin)]
FieldName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,39}$")]
Version = Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,60}$")]


class Option(Section):
    value: Line
    label: Texts


class FormField(Section):
    name: FieldName
    type: FieldType
    fact: Fact | None = None
    """What it says about the lead; without one it is only stored and shown."""
    required: bool = False
    label: Texts | None = None
    options: tuple[Option, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.name in _RESERVED:
            raise FaultError(["name"], f"{self.name} is a name of Ostoja's own")
        if self.label is None and self.type != "hidden":
            raise FaultError(["label"], "is missing")
        if (self.type == "select") != bool(self.options):
            raise FaultError(["options"], "a select, and nothing else, has options")
        if self.fact is not None and self.type not in _TYPES_OF[self.fact]:
            raise FaultError(["fact"], f"needs one of the types {', '.join(_TYPES_OF[self.fact])}")
        return self

    @property
    def most(self) -> int:
        return LONG if self.type == "textarea" else SHORT

    def read(self, given: str) -> tuple[str, str | None]:
        """Return the value as it is kept, and what is wrong with it: a key of the texts."""
        lines = given.replace("\r\n", "\n").replace("\r", "\n").strip()
        value = lines if self.type == "textarea" else " ".join(given.split())
        if not value:
            return value, "required" if self.required else None
        if len(value) > self.most:
            return value, "long"
        try:
            match self.type:
                case "email":
                    value = email_address.normalise(value)
                case "phone":
                    value = phone_number.normalise(value)
                case "date":
                    value = date.fromisoformat(value).isoformat()
        except ValueError:
            return value, self.type
        if self.type in {"number", "money"} and not _DIGIT.search(value):
            return value, "number"
        if self.type == "select" and value not in {option.value for option in self.options}:
            return value, "select"
        return value, None


class _WordingVersion(Section):
    version: Version
    pl: Line
    en: Line
    ended: date | None = None
    """The first day on which it was no longer shown."""


class Consent(Section):
    purpose: Annotated[str, Field(pattern=PAIR)]
    """With its channel, unless that is e-mail: `marketing:phone`."""
    versions: tuple[_WordingVersion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_stands_once(self) -> Self:
        if found := twice(each.version for each in self.versions):
            raise FaultError(["versions"], f"two wordings of one version: {found}")
        if twice(wording.sha256 for _, wording in self.wordings()):
            raise FaultError(["versions"], "the same text twice")
        return self

    def wordings(self) -> list[tuple[date | None, Wording]]:
        """Return each text with the day on which it ended."""
        return [
            (each.ended, Wording(each.version, self.purpose, language, getattr(each, language)))
            for each in self.versions
            for language in LANGUAGES
        ]

    def shown(self, language: str, today: date) -> Wording | None:
        """Return the newest text that has not ended."""
        standing = [
            wording
            for ended, wording in self.wordings()
            if wording.language == language and (ended is None or ended > today)
        ]
        return standing[-1] if standing else None

    def published(self, sha256: str, today: date, grace: timedelta) -> Wording | None:
        """Find a text by its hash, up to `grace` after it ended: a page may have been open."""
        for ended, wording in self.wordings():
            if wording.sha256 == sha256:
                return wording if ended is None or today < ended + grace else None
        return None


class Notice(Section):
    """What a person must be told before they send (Art. 13 GDPR)."""

    version: Version
    url: Urls
    text: Texts


class _Limits(Section):
    address: Limit = "20 per hour"
    form: Limit = "600 per hour"


@dataclass(frozen=True, slots=True)
class Read:
    """What a submission says, by this form."""

    values: dict[str, str]
    facts: dict[str, str]
    faults: dict[str, str]
    """By field; the texts are the gateway's."""


class Form(Section):
    version: Version
    title: Texts
    origins: tuple[Origin, ...] = ()
    null_origin: bool = False
    """Pages with `Referrer-Policy: no-referrer` send `Origin: null`. So does any sandboxed page."""
    success: Urls
    alert: Literal["always", "qualified"] = "always"
    sequence: Annotated[str, Field(pattern="^[a-z0-9_-]{1,60}$")] = "default"
    limits: _Limits = _Limits()
    proof: Literal["on", "off"] = "off"
    """Proof of work, which the widget does; a page without a script is asked to confirm."""
    minimum_seconds: int = Field(3, ge=0, le=60)
    trap: FieldName | None = None
    notice: Notice
    fields: tuple[FormField, ...] = Field(min_length=1, max_length=MOST_FIELDS)
    consents: tuple[Consent, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        names = [field.name for field in self.fields]
        facts: list[str] = [field.fact for field in self.fields if field.fact is not None]
        for key, each in (("fields", names), ("fields", facts), ("consents", self.purposes)):
            if found := twice(each):
                raise FaultError([key], f"{found} stands twice")
        if not {"email", "phone"} & set(facts):
            raise FaultError(["fields"], 'needs a field with fact = "email" or fact = "phone"')
        for _, channel in map(split_pair, self.purposes):
            if channel not in facts:
                needs = f'an agreement by {channel} needs a field with fact = "{channel}"'
                raise FaultError(["consents"], needs)
        if self.trap is not None and (self.trap in names or self.trap in _RESERVED):
            raise FaultError(["trap"], "must not be the name of a field")
        return self

    def field(self, name: str) -> FormField | None:
        return next((field for field in self.fields if field.name == name), None)

    def read(self, given: Mapping[str, str], version: str | None) -> Read:
        """Check what was sent.

        A page that was open while the form changed sends an older version: fields that are gone
        are then kept as they are, and new ones are not demanded. A contact always is.

        :param version: of the form that the sender saw; None: today's
        """
        today = version in {None, self.version}
        found = Read({}, {}, {})
        if len(given) > MOST_FIELDS:
            found.faults["fields"] = "many"
            return found
        for name, text in given.items():
            field = self.field(name)
            value, fault = _gone(name, text) if field is None else field.read(text)
            if field is None and today:
                fault = "unknown"
            if fault is not None and (today or fault != "required"):
                found.faults[name[:60]] = fault
            elif value:
                found.values[name] = value
                if field is not None and field.fact is not None:
                    found.facts[field.fact] = value
        for field in self.fields:
            if today and field.required and field.name not in given:
                found.faults[field.name] = "required"
        if not found.faults and not {"email", "phone"} & found.facts.keys():
            contact = next(field for field in self.fields if field.fact in {"email", "phone"})
            found.faults[contact.name] = "contact"
        return found

    def shown(self, language: str, today: date) -> list[Wording]:
        wordings = (consent.shown(language, today) for consent in self.consents)
        return [wording for wording in wordings if wording is not None]

    def published(
        self, consents: Mapping[str, str], today: date, grace: timedelta
    ) -> tuple[list[Wording], list[str]]:
        """Look up what a person agreed to, by purpose and hash.

        :returns: the wordings, and the purposes for which there is none that counts
        """
        found: list[Wording] = []
        missing = [purpose for purpose in consents if purpose not in self.purposes]
        for consent in self.consents:
            if (sha256 := consents.get(consent.purpose)) is not None:
                wording = consent.published(sha256, today, grace)
                if wording is None:
                    missing.append(consent.purpose)
                else:
                    found.append(wording)
        return found, missing

    @property
    def purposes(self) -> list[str]:
        return [consent.purpose for consent in self.consents]


def _gone(name: str, text: str) -> tuple[str, str | None]:
    """Read a field of an older version of the form."""
    if not _NAME.fullmatch(name):
        return "", "unknown"
    return text.strip(), "long" if len(text) > LONG else None


class _File(Section):
    forms: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,39}$")], Form] = Field(
        default_factory=dict
    )


Forms = Mapping[str, Form]


def load(path: Path, site: str = "") -> Forms:
    """Read the file.

    :param site: the origin of the sandbox's web site
    :raises SystemExit: names the file and every fault in it
    """
    known = shipped.read(path, "forms").load(_File).forms
    for name, form in known.items():
        origins = tuple(site if each == SANDBOX else each for each in form.origins)
        known[name] = form.model_copy(update={"origins": origins})
    return known


def finder(company: CompanyFile, known: Forms) -> FindWording:
    """Return a function that finds a wording by its exact text or the SHA-256 of that (hex).

    Only what company.toml or forms.toml publishes becomes a record of consent, whoever sends it.
    Neither drops an older one, so what somebody agreed to years ago is still found.
    """
    published = [*company.published]
    for name, form in known.items():
        for consent in form.consents:
            wordings = (wording for _, wording in consent.wordings())
            published += [replace(each, version=f"{name}/{each.version}") for each in wordings]
    found: dict[str, Wording] = {}
    for each in published:
        found.setdefault(each.text, each)
        found.setdefault(each.sha256, each)
    return lambda given: found.get(given.strip())
