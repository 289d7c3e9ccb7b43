"""company.toml: the company's data, and every wording of consent."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from libs.common.process.config_file import ConfigFile, FaultError
from libs.common.process.settings import Settings
from libs.domain.email_address import normalise
from libs.domain.hours_section import HoursSection

Place = Literal["chat", "form"]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Field(min_length=1, max_length=2_000)]
Language = Annotated[str, Field(pattern="^[a-z]{2}$")]


About = Literal[
    "purposes", "categories", "recipients", "periods", "rights", "source", "automated_decisions",
    "transfers",
]  # fmt: skip


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


LEGIBLE = 4.5
"""The contrast of text that WCAG 2.2 asks for (1.4.3)."""
DARK = "#16191d"
"""What lies behind text at night."""
STYLE = """\
:root{{--accent:{day};--on:#fff}}@media(prefers-color-scheme:dark){{:root{{--accent:{night};--on:{dark}}}}}
"""
DEFAULT_STYLE = STYLE.format(day="#0b5cad", night="#78a5d1", dark=DARK)
"""Of a process without the file."""


def contrast(one: str, other: str) -> float:
    """Return WCAG's ratio of two colours, `#rrggbb`."""

    def luminance(colour: str) -> float:
        parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _legible(accent: str) -> str:
    if (found := contrast(accent, "#ffffff")) < LEGIBLE:
        raise ValueError(f"its contrast to white is {found:.1f}; text needs {LEGIBLE}: darken it")
    return accent


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


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
    accent: Annotated[str, Field(pattern="^#[0-9a-f]{6}$"), AfterValidator(_legible)] = "#0b5cad"
    """The colour of buttons and links, in the console, forms, mails, pages and the widget."""

    @property
    def accent_at_night(self) -> str:
        """The accent with as much white as makes it legible on a dark page."""
        parts = [int(self.accent[at : at + 2], 16) for at in (1, 3, 5)]
        mixed = (
            "#" + "".join(f"{part + (255 - part) * white // 20:02x}" for part in parts)
            for white in range(21)
        )
        return next(each for each in mixed if contrast(each, DARK) >= LEGIBLE + 2)

    @property
    def style(self) -> str:
        """The accent, and the colour of text on it, for a style sheet."""
        return STYLE.format(day=self.accent, night=self.accent_at_night, dark=DARK)

    @property
    def contacts(self) -> str:
        """Where people reach the company: its phone, if there is one, and its address."""
        return ", ".join(filter(None, (self.phone, self.contact)))


@dataclass(frozen=True, slots=True)
class Wording:
    """A text of consent in one language."""

    version: str
    purpose: str
    language: str
    text: str

    @property
    def sha256(self) -> str:
        """The hash that consent's trail stores."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class _Wording(Section):
    version: str = Field(pattern="^[a-z0-9._-]{1,60}$")
    purpose: str = Field(pattern="^[a-z_]{1,40}$")
    place: Place
    text: dict[Language, Text]


class CompanyFile(Section):
    company: Company
    hours: HoursSection | None = None
    """When people answer."""
    processing: dict[About, dict[Language, Text]] = {}
    """What Art. 15(1) GDPR requires us to tell beside the data; an export includes it."""
    wordings: tuple[_Wording, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_version_stands_once(self) -> Self:
        if found := twice(wording.version for wording in self.wordings):
            raise FaultError(["wordings"], f"duplicate version {found}")
        if twice(each.text for each in self.published):
            raise FaultError(["wordings"], "duplicate text")
        return self

    @model_validator(mode="after")
    def _who_asks_says_who_they_are(self) -> Self:
        """Check only the wordings in use; older ones must never change."""
        for wording in {each.place: each for each in self.wordings}.values():
            for language, text in wording.text.items():
                for needed in (self.company.legal_name, self.company.privacy_url):
                    if needed not in text:
                        where = ("wordings", self.wordings.index(wording), "text", language)
                        raise FaultError(where, f"must contain {needed!r}")
        return self

    @property
    def published(self) -> list[Wording]:
        return [
            Wording(wording.version, wording.purpose, language, text)
            for wording in self.wordings
            for language, text in wording.text.items()
        ]

    def asking(self, place: Place, language: str) -> Wording:
        """Return the wording in use at this place.

        :raises LookupError: there is none in this language
        """
        last = next(each for each in reversed(self.wordings) if each.place == place)
        return Wording(last.version, last.purpose, language, last.text[language])


def style_of(path: Path) -> str:
    """Return the style of the company in this file; the usual one if there is no file."""
    return load(path).company.style if path.is_file() else DEFAULT_STYLE


def load(path: Path) -> CompanyFile:
    """Read the file.

    :raises SystemExit: names the file and every fault in it
    """
    return ConfigFile(path).load(CompanyFile)
