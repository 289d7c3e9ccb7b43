"""followups.toml and its templates, read and checked once, when the service starts."""

import re
import tomllib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from holidays import country_holidays
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from services.followups import dialogue
from services.followups.facts import Facts
from services.followups.followup import Hours, due_times
from services.followups.lead import TOP_SCORE, Rule

SHIPPED_TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("pl", "en")
"""What the dialogue reads and writes; texts and templates exist for each."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DELAY = re.compile(r"(\d{1,6})([smhd])")


def _delay(value: object) -> timedelta:
    if not (match := _DELAY.fullmatch(str(value))):
        raise ValueError("a number and one of s, m, h, d, as in 90m or 2d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _zone(name: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(name))
    except (KeyError, OSError, ValueError):
        raise ValueError("no such time zone on this machine (is tzdata installed?)") from None


def _holidays(country: object) -> Container[date]:
    """Return the public holidays of a country, of whatever year is asked for."""
    try:
        return country_holidays(str(country))
    except NotImplementedError:
        raise ValueError("no country whose holidays are known, as in PL") from None


def _in_each_language(texts: dict[str, Any]) -> dict[str, Any]:
    if set(texts) != set(LANGUAGES):
        raise ValueError(f"needs each of {', '.join(LANGUAGES)}")
    return texts


def _complete(script: dict[str, str]) -> dict[str, str]:
    if faults := set(script) ^ dialogue.TEXTS:
        raise ValueError(f"missing or unknown texts: {', '.join(sorted(faults))}")
    try:
        script["noted"].format(facts="")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"noted: only {{facts}} may stand in braces, not {error}") from None
    return script


PerLanguage = AfterValidator(_in_each_language)
Language = Annotated[str, Field(pattern=f"^({'|'.join(LANGUAGES)})$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Hours(_Section):
    zone: Annotated[Any, BeforeValidator(_zone)]
    opens: time
    closes: time
    weekends: bool = False
    holidays: Annotated[Any, BeforeValidator(_holidays)] = ()

    @model_validator(mode="after")
    def _opens_before_it_closes(self) -> Self:
        if self.opens >= self.closes:
            raise ValueError("opens must be before closes")
        return self


class _Rule(_Section):
    points: int = Field(ge=-TOP_SCORE, le=TOP_SCORE)
    reason: str = Field(min_length=1, max_length=200)
    known: tuple[Annotated[str, Field(pattern=f"^({'|'.join(Facts.__slots__)})$")], ...] = Field(
        min_length=1
    )
    at_least: float | None = None


class _Lead(_Section):
    threshold: int = Field(ge=1, le=TOP_SCORE)
    rules: tuple[_Rule, ...]


class _Dialogue(_Section):
    instructions: str = Field(min_length=1, max_length=4000)
    works: tuple[Annotated[str, Field(min_length=3, pattern=r"^[^\sA-Z]+$")], ...]
    texts: Annotated[dict[str, Annotated[dict[str, str], AfterValidator(_complete)]], PerLanguage]


class Step(_Section):
    delay: Annotated[timedelta, BeforeValidator(_delay)]
    template: str = Field(pattern=r"^[a-z0-9_-]{1,60}$")
    subject: Annotated[dict[str, str], PerLanguage]


class _Sequence(_Section):
    steps: tuple[Step, ...] = Field(min_length=1, max_length=50)


class _File(_Section):
    company: str = Field(min_length=1, max_length=200)
    site: str = Field(pattern=r"^https?://\S+$")
    default_language: Language = "pl"
    staff_language: Language = "en"
    templates: str | None = None
    hours: _Hours
    lead: _Lead
    dialogue: _Dialogue
    sequences: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,60}$")], _Sequence]

    @model_validator(mode="after")
    def _has_a_default(self) -> Self:
        if "default" not in self.sequences:
            raise ValueError("sequences.default is missing")
        return self


@dataclass(frozen=True, slots=True)
class Config:
    company: str
    site: str
    default_language: str
    staff_language: str
    templates: Path
    hours: Hours
    threshold: int
    rules: tuple[Rule, ...]
    works: tuple[str, ...]
    instructions: str
    texts: Mapping[str, Mapping[str, str]]
    sequences: Mapping[str, tuple[Step, ...]]

    def due_times(
        self,
        sequence: str,
        now: datetime,
        *,
        from_step: int = 1,
        first_delay: timedelta | None = None,
    ) -> list[datetime]:
        """When the steps of a sequence are due, for somebody who is enrolled now."""
        steps = self.sequences.get(sequence, ())[from_step - 1 :]
        return list(due_times(now, [step.delay for step in steps], self.hours, first_delay))


def load(path: Path, *, quiet_hours: bool = True) -> Config:
    """Read the file.

    :raises SystemExit: names the file and every fault in it
    """
    try:
        file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = "\n".join(
            f"  {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        )
        raise SystemExit(f"cannot start, {path} is at fault:\n{faults}") from None
    except (OSError, ValueError) as error:
        raise SystemExit(f"cannot start, {path}: {error}") from None
    return Config(
        company=file.company,
        site=file.site,
        default_language=file.default_language,
        staff_language=file.staff_language,
        templates=path.parent / file.templates if file.templates else SHIPPED_TEMPLATES,
        hours=Hours(
            zone=file.hours.zone,
            opens=file.hours.opens if quiet_hours else None,
            closes=file.hours.closes if quiet_hours else None,
            weekends=file.hours.weekends,
            holidays=file.hours.holidays,
        ),
        threshold=file.lead.threshold,
        rules=tuple(
            Rule(rule.points, rule.reason, tuple(rule.known), rule.at_least)
            for rule in file.lead.rules
        ),
        works=file.dialogue.works,
        instructions=file.dialogue.instructions,
        texts=file.dialogue.texts,
        sequences={name: sequence.steps for name, sequence in file.sequences.items()},
    )
