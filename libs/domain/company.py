"""company.toml: the company's data, and every wording of consent."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from libs.common.process.config_file import FaultError
from libs.common.process.settings import Settings
from libs.domain import shipped
from libs.domain.email_address import normalise
from libs.domain.hours_section import HoursSection

Place = Literal["chat", "form"]
CHANNELS = ("email", "phone")
PAIR = "^[a-z_]{1,40}(:phone)?$"
"""A purpose and its channel, as everything but the company's own files names it."""
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Field(min_length=1, max_length=2_000)]
Language = Annotated[str, Field(pattern="^[a-z]{2}$")]


About = Literal[
    "purposes", "categories", "recipients", "periods", "rights", "source", "automated_decisions",
    "transfers",
]  # fmt: skip


def pair(purpose: str, channel: str = "email") -> str:
    """Return a purpose with its channel; by e-mail it is the purpose alone."""
    return purpose if channel == "email" else f"{purpose}:{channel}"


def split_pair(given: str) -> tuple[str, str]:
    purpose, _, channel = given.partition(":")
    return purpose, channel or "email"


class CompanySettings(Settings):
    company_config: Path = Path("config/company.toml")
    forms_config: Path = Path("config/forms.toml")

    @cached_property
    def company(self) -> "Company":
        """:raises SystemExit: names the file and every fault in it"""
        return load(self.company_config).company


def twice(given: Iterable[str]) -> str:
    """Return what occurs more than once, as one text."""
    return ", ".join(sorted(each for each, number in Counter(given).items() if number > 1))


def _address(text: str) -> str:
    normalise(text)
    return text


LEGIBLE, DARK = 4.5, "#16191d"
"""The contrast of text that WCAG 2.2 asks for (1.4.3), and what lies behind text at night."""
STYLE = """\
:root{{--accent:{};--on:#fff}}@media(prefers-color-scheme:dark){{:root{{--accent:{};--on:#16191d}}}}
"""
ACCENT = "#0b5cad"


def _parts(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def contrast(one: str, other: str) -> float:
    """Return WCAG's ratio of two colours, `#rrggbb`."""

    def luminance(colour: str) -> float:
        shares = (part / 255 for part in _parts(colour))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in shares]
        return sum(p * of for p, of in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def style(accent: str = ACCENT) -> str:
    """Return the accent, and the colour of text on it, for a style sheet.

    At night the accent is more than half white: legible on DARK, whatever it was.
    """
    night = (f"{part + (255 - part) * 11 // 20:02x}" for part in _parts(accent))
    return STYLE.format(accent, "#" + "".join(night))


def _legible(accent: str) -> str:
    if (found := contrast(accent, "#ffffff")) < LEGIBLE:
        raise ValueError(f"its contrast to white is {found:.1f}; text needs {LEGIBLE}: darken it")
    return accent


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def _a_channel(text: str) -> str:
    if text == "sms":
        raise ValueError("sms: nobody can be mailed or called by it; marketing by SMS is refused")
    if text not in CHANNELS:
        raise ValueError(f"must be one of {', '.join(CHANNELS)}")
    return text


def _a_grant(text: str) -> str:
    """Read `purpose:channel`."""
    purpose, _, channel = text.partition(":")
    return pair(purpose, _a_channel(channel))


PurposeName = Annotated[str, Field(pattern="^[a-z_]{1,40}$")]
Channel = Annotated[str, AfterValidator(_a_channel)]


class Purpose(Section):
    label: dict[Language, Line]
    channels: tuple[Channel, ...] = ("email",)


class Company(Section):
    name: Line
    legal_name: Line
    address: Line
    nip: str = Field(pattern="^[0-9]{10}$")
    contact: Annotated[Line, AfterValidator(_address)]
    phone: Annotated[Line, Field(pattern=r"^\+?[0-9][0-9 ()./-]{5,30}$")] | None = None
    privacy_url: str = Field(pattern=r"^https?://[^\s<>\"]+$", max_length=500)
    towns: tuple[Line, ...] = ()
    """Where it works; empty: texts do not say."""
    prices: dict[Language, Line] = {}
    durations: dict[Language, Line] = {}
    included: dict[Language, Line] = {}
    quote: dict[Language, Line] = {}
    """What a visit and a quote cost, and how long the quote takes; `included`: in these prices."""
    answers: dict[str, dict[Language, Line]] = {}
    """What the chat says when it is asked, by the name of the shipped route."""
    accent: Annotated[str, Field(pattern="^#[0-9a-f]{6}$"), AfterValidator(_legible)] = ACCENT
    """The colour of buttons and links, in the console, forms, mails and pages."""

    @property
    def contacts(self) -> str:
        """Where people reach the company: its phone, if there is one, and its address."""
        return ", ".join(filter(None, (self.phone, self.contact)))


@dataclass(frozen=True, slots=True)
class Wording:
    """A text of consent in one language."""

    version: str
    purpose: str
    """The first that it grants."""
    language: str
    text: str
    grants: tuple[str, ...] = ()
    """All that it grants, if more than that; each is agreed to by itself."""

    def allows(self, pair: str) -> bool:
        return pair in (self.grants or (self.purpose,))

    @property
    def sha256(self) -> str:
        """The hash that consent's trail stores."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class _Wording(Section):
    version: str = Field(pattern="^[a-z0-9._-]{1,60}$")
    purpose: PurposeName = "marketing"
    grants: tuple[Annotated[str, AfterValidator(_a_grant)], ...] = ()
    """In place of `purpose`, which is by e-mail: `purpose:channel`, each."""
    place: Place
    text: dict[Language, Text]

    @property
    def pairs(self) -> tuple[str, ...]:
        return self.grants or (self.purpose,)


class CompanyFile(Section):
    company: Company
    hours: HoursSection | None = None
    """When people answer."""
    processing: dict[About, dict[Language, Text]] = {}
    """What Art. 15(1) GDPR requires us to tell beside the data; an export includes it."""
    purposes: dict[PurposeName, Purpose] = {}
    """What consent is asked for beside marketing by e-mail, by each means (PKE, Art. 398)."""
    wordings: tuple[_Wording, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_version_stands_once(self) -> Self:
        if found := twice(wording.version for wording in self.wordings):
            raise FaultError(["wordings"], f"duplicate version {found}")
        if twice(each.text for each in self.published):
            raise FaultError(["wordings"], "duplicate text")
        return self

    @model_validator(mode="after")
    def _each_grants_what_there_is(self) -> Self:
        for number, wording in enumerate(self.wordings):
            if unknown := [each for each in wording.grants if each not in self.pairs]:
                raise FaultError(["wordings", number, "grants"], f"not in [purposes]: {unknown[0]}")
        if [each.pairs[0] for each in self.wordings if each.place == "chat"][-1:] == ["marketing"]:
            return self
        raise FaultError(["wordings"], "the last for the chat must grant marketing:email, first")

    @model_validator(mode="after")
    def _who_asks_says_who_they_are(self) -> Self:
        """Check only the wordings in use; older ones must never change."""
        for wording in {(each.place, each.pairs): each for each in self.wordings}.values():
            for language, text in wording.text.items():
                for needed in (self.company.legal_name, self.company.privacy_url):
                    if needed not in text:
                        where = ("wordings", self.wordings.index(wording), "text", language)
                        raise FaultError(where, f"must contain {needed!r}")
        return self

    @property
    def published(self) -> list[Wording]:
        return [
            Wording(wording.version, wording.pairs[0], language, text, wording.pairs)
            for wording in self.wordings
            for language, text in wording.text.items()
        ]

    def asking(self, place: Place, language: str) -> Wording:
        """Return the wording in use at this place.

        :raises LookupError: there is none in this language
        """
        last = next(each for each in reversed(self.wordings) if each.place == place)
        return Wording(last.version, last.pairs[0], language, last.text[language], last.pairs)

    @property
    def pairs(self) -> tuple[str, ...]:
        """Every purpose and channel, marketing by e-mail first."""
        found = (pair(name, by) for name, each in self.purposes.items() for by in each.channels)
        return tuple(dict.fromkeys(["marketing", *found]))

    def current(self, wanted: str, language: str) -> Wording | None:
        """Return the newest wording that grants this, in this language if there is one."""
        known = [each for each in self.published if each.allows(wanted)]
        return next(reversed([each for each in known if each.language == language] or known), None)


def style_of(path: Path) -> str:
    """Return the style of the company in this file; the usual one if there is no file."""
    return style(load(path).company.accent if path.is_file() else ACCENT)


def name_of(path: Path) -> str:
    return load(path).company.name if path.is_file() else ""


def load(path: Path) -> CompanyFile:
    """Read the file.

    :raises SystemExit: names the file and every fault in it
    """
    return shipped.read(path, "company").load(CompanyFile)
