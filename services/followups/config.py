"""followups.toml and its templates, read and checked once at start."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from libs.common.process.config_file import ConfigFile, Duration
from libs.domain.company import Company, CompanyFile
from libs.domain.company import load as load_company
from libs.domain.forms import FindWording, Forms, finder
from libs.domain.hours import Hours
from libs.domain.hours_section import HoursSection
from services.followups import dialogue
from services.followups.reading import phrases, place
from services.followups.reading.routing import Action, Route, Routes, Then, Topic
from services.followups.rules.facts import MAX_AREA, MAX_BUDGET, MIN_AREA, Facts
from services.followups.rules.score import TOP_SCORE, Rule
from services.followups.rules.sequence import due_times

SHIPPED_TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("pl", "en")
"""Languages of the dialogue. Texts and templates exist for each."""


HANDOVER = ("de", "uk")
"""Languages without a form: a person answers."""


def _in_each_language(texts: dict[str, Any]) -> dict[str, Any]:
    if set(texts) != set(LANGUAGES):
        raise ValueError(f"needs each of {', '.join(LANGUAGES)}")
    return texts


def _also_handed_over(texts: dict[str, str]) -> dict[str, str]:
    _in_each_language({name: text for name, text in texts.items() if name not in HANDOVER})
    return texts


OF_COMPANY = (
    "company",
    "legal_name",
    "privacy_url",
    "company_email",
    "company_address",
    "company_nip",
    "company_contacts",
)


def _checked(script: dict[str, str], needed: frozenset[str]) -> dict[str, str]:
    if faults := set(script) ^ needed:
        raise ValueError(f"missing or unknown texts: {', '.join(sorted(faults))}")
    for name, text in script.items():
        _braces(name, text, dialogue.PLACES.get(name, "company"))
    return script


def _braces(name: str, text: str, place: str) -> None:
    known = {*OF_COMPANY, place}
    if faults := {part for _, part, *_ in Formatter().parse(text) if part is not None} - known:
        raise ValueError(
            f"{name}: only {', '.join(sorted(known))} are allowed in braces, not {sorted(faults)}"
        )


def _handed_over(script: dict[str, str]) -> dict[str, str]:
    return _checked(script, dialogue.HANDOVER_TEXTS)


PerLanguage = AfterValidator(_in_each_language)
Language = Annotated[str, Field(pattern=f"^({'|'.join(LANGUAGES)})$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Texts = dict[str, Annotated[str, Field(min_length=1, max_length=1000)]]
Texts = Annotated[_Texts, PerLanguage]
Replies = Annotated[_Texts, AfterValidator(_also_handed_over)]


class _Rule(_Section):
    points: int = Field(ge=-TOP_SCORE, le=TOP_SCORE)
    reason: Texts
    known: tuple[Annotated[str, Field(pattern=f"^({'|'.join(Facts._fields)})$")], ...] = Field(
        min_length=1
    )
    at_least: float | None = None


class _Lead(_Section):
    threshold: int = Field(ge=1, le=TOP_SCORE)
    rules: tuple[_Rule, ...]
    update_after: Duration = timedelta(seconds=30)
    contact_only_after: Duration = timedelta(minutes=10)
    reopens_after: Duration = timedelta(days=30)


def _phrase(text: str) -> str:
    if fault := phrases.phrase_fault(text):
        raise ValueError(fault)
    return text


def _way(text: str) -> str:
    if phrases.SIGN.search(text) or "{" in text:
        raise ValueError(f"{text!r}: a list must not contain +, - or another list")
    return _phrase(text)


Phrases = tuple[Annotated[str, Field(max_length=200), AfterValidator(_phrase)], ...]
Ways = Annotated[
    tuple[Annotated[str, Field(max_length=200), AfterValidator(_way)], ...], Field(min_length=1)
]


class _Topic(_Section):
    label: Texts
    severity: Literal["info", "warning", "critical"] = "info"
    at_once: bool = False
    ask: Replies = {}
    told: Replies = {}


class _Route(_Section):
    name: str = Field(pattern=r"^[a-z0-9_]{1,60}$")
    words: Phrases = Field(min_length=1)
    unless: Phrases = ()
    answer: Replies = {}
    ask: Replies = {}
    told: Replies = {}
    told_without_email: Replies = {}
    again: Replies = {}
    then: Then = "form"
    topic: str | None = None
    action: Action | None = None
    first: bool = False
    lead: bool = True
    alone: bool = False
    asks: bool = False
    always: bool = False
    offers: str | None = None
    skips: tuple[Literal["wish", "area", "budget", "start", "contact", "consent"], ...] = ()


def _town(text: str) -> str:
    if place.find(text) != text:
        raise ValueError(f"{text!r} is not in services/followups/reading/towns.txt")
    return text


def _rising(bounds: tuple[int, ...]) -> tuple[int, ...]:
    if list(bounds) != sorted({*bounds}):
        raise ValueError("the bounds of the bands must rise")
    return bounds


def _chip(name: str) -> str:
    if name == dialogue.SKIP:
        raise ValueError("is the name of a chip that each question has")
    return name


Chip = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$"), AfterValidator(_chip)]
_Bound = TypeVar("_Bound")
Bounds = Annotated[tuple[_Bound, ...], Field(max_length=8), AfterValidator(_rising)]


class _Taps(_Section):
    opening: dict[Chip, str] = Field({}, max_length=5)
    wish: tuple[Chip, ...] = Field((), max_length=12)
    area: Bounds[Annotated[int, Field(ge=MIN_AREA, le=MAX_AREA)]] = ()
    budget: Bounds[Annotated[int, Field(ge=1, le=MAX_BUDGET)]] = ()


class _Dialogue(_Section):
    instructions: str = ""
    """Ignored: the prompt of a model that once worded replies; older files have it."""
    works: tuple[Annotated[str, Field(min_length=3, pattern=r"^[^\sA-Z]+$")], ...]
    towns: tuple[Annotated[str, AfterValidator(_town)], ...] = ()
    taps: _Taps = _Taps()
    texts: Annotated[dict[str, dict[str, str]], PerLanguage]
    handover: dict[
        Annotated[str, Field(pattern=f"^({'|'.join(HANDOVER)})$")],
        Annotated[dict[str, str], AfterValidator(_handed_over)],
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _texts_are_complete(self) -> Self:
        labels = {f"tap_{name}" for name in (*self.taps.opening, *self.taps.wish)}
        for script in self.texts.values():
            _checked(script, dialogue.TEXTS | labels)
        return self


class Step(_Section):
    delay: Duration
    template: str = Field(pattern=r"^[a-z0-9_-]{1,60}$")
    subject: Annotated[dict[str, str], PerLanguage]


class _Sequence(_Section):
    steps: tuple[Step, ...] = Field(min_length=1, max_length=50)


class _File(_Section):
    site: str = Field(pattern=r"^https?://\S+$")
    default_language: Language = "pl"
    staff_language: Language = "en"
    templates: str | None = None
    hours: HoursSection
    lead: _Lead
    dialogue: _Dialogue
    topics: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], _Topic] = {}
    words: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], Ways] = {}
    routes: tuple[_Route, ...] = ()
    sequences: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,60}$")], _Sequence]

    @model_validator(mode="after")
    def _has_a_default(self) -> Self:
        if "default" not in self.sequences:
            raise ValueError("sequences.default is missing")
        return self

    @model_validator(mode="after")
    def _routes_have_names_and_topics(self) -> Self:
        names = ["", *(route.name for route in self.routes)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"routes: duplicate name {', '.join(twice)}")
        leads_to = {*self.dialogue.taps.opening.values(), *(r.offers or "" for r in self.routes)}
        if strange := sorted(leads_to - set(names)):
            raise ValueError(f"taps and offers lead to unknown routes: {', '.join(strange)}")
        for route in self.routes:
            used = set().union(*map(phrases.lists_in, route.words + route.unless))
            if unknown := sorted(used - set(self.words)):
                raise ValueError(f"routes.{route.name}: unknown [words] list {', '.join(unknown)}")
            if route.offers and not route.answer:
                raise ValueError(f"routes.{route.name}: offers needs an answer, which asks")
            if route.topic is not None and route.topic not in self.topics:
                raise ValueError(f"routes.{route.name}: unknown topic {route.topic}")
            if route.topic is not None and route.then != "contact":
                raise ValueError(
                    f'routes.{route.name}: a route with a topic needs then = "contact"'
                )
        return self


@dataclass(frozen=True, slots=True)
class Config:
    company: Company
    published: FindWording
    """Finds a published wording; None if the company has not published it."""
    site: str
    default_language: str
    staff_language: str
    templates: Path
    hours: Hours
    threshold: int
    rules: tuple[Rule, ...]
    works: tuple[str, ...]
    towns: tuple[str, ...]
    """Where the company works; empty: texts do not say."""
    texts: Mapping[str, Mapping[str, str]]
    handover: Mapping[str, Mapping[str, str]]
    sequences: Mapping[str, tuple[Step, ...]]
    topics: Mapping[str, Topic]
    routes: Routes
    taps: dialogue.Taps
    update_after: timedelta
    contact_only_after: timedelta
    reopens_after: timedelta

    def today(self, now: datetime) -> date:
        return now.astimezone(self.hours.zone).date()

    def language_of(self, given: str | None) -> str:
        """Return the language of the dialogue for one that a page names, such as `en-GB`."""
        short = (given or "")[:2].lower()
        return short if short in LANGUAGES else self.default_language

    def due_times(
        self,
        sequence: str,
        now: datetime,
        *,
        from_step: int = 1,
        first_delay: timedelta | None = None,
    ) -> list[datetime]:
        """Return when the steps of a sequence are due for a lead that is enrolled now."""
        steps = self.sequences.get(sequence, ())[from_step - 1 :]
        return list(due_times(now, [step.delay for step in steps], self.hours, first_delay))


def _about(company: Company, text: str) -> str:
    """Fill in the company's data; placeholders that a turn fills stay in braces."""
    values = (
        company.name,
        company.legal_name,
        company.privacy_url,
        company.contact,
        company.address,
        company.nip,
        company.contacts,
    )
    for name, value in zip(OF_COMPANY, values, strict=True):
        text = text.replace(f"{{{name}}}", value)
    return text


def _script(company: CompanyFile, language: str, script: Mapping[str, str]) -> dict[str, str]:
    texts = {name: _about(company.company, text) for name, text in script.items()}
    return texts | {"consent_wording": company.asking("chat", language).text}


def _route(company: Company, topics: Mapping[str, _Topic], route: _Route) -> Route:
    def about(texts: Mapping[str, str]) -> dict[str, str]:
        return {language: _about(company, text) for language, text in texts.items()}

    topic = topics[route.topic] if route.topic else None
    names = ("answer", "ask", "told", "told_without_email", "again")
    texts = {name: about(getattr(route, name) or getattr(topic, name, {})) for name in names}
    at_once = topic is not None and topic.at_once
    return Route(**dict(route) | texts, at_once=at_once)


def load(
    path: Path, company_path: Path, forms: Forms | None = None, *, quiet_hours: bool = True
) -> Config:
    """Read followups.toml and company.toml.

    :param forms: they also have wordings
    :raises SystemExit: names the file and every fault in it
    """
    file = ConfigFile(path).load(_File)
    company = load_company(company_path)
    hours = file.hours.hours
    texts = {
        language: _script(company, language, script)
        for language, script in file.dialogue.texts.items()
    }
    handover = {
        language: {name: _about(company.company, text) for name, text in script.items()}
        for language, script in file.dialogue.handover.items()
    }
    routes = Routes(
        [_route(company.company, file.topics, route) for route in file.routes], file.words
    )
    chips = dict(file.dialogue.taps)
    return Config(
        company=company.company,
        published=finder(company, forms or {}),
        site=file.site,
        default_language=file.default_language,
        staff_language=file.staff_language,
        templates=path.parent / file.templates if file.templates else SHIPPED_TEMPLATES,
        hours=hours if quiet_hours else replace(hours, opens=None, closes=None),
        threshold=file.lead.threshold,
        rules=tuple(
            Rule(rule.points, rule.reason[file.staff_language], tuple(rule.known), rule.at_least)
            for rule in file.lead.rules
        ),
        works=file.dialogue.works,
        towns=file.dialogue.towns,
        texts=texts,
        handover=handover,
        sequences={name: sequence.steps for name, sequence in file.sequences.items()},
        topics={
            name: Topic(topic.severity, topic.label, topic.at_once)
            for name, topic in file.topics.items()
        },
        routes=routes,
        taps=dialogue.Taps(texts, handover, file.default_language, routes, **chips),
        update_after=file.lead.update_after,
        contact_only_after=file.lead.contact_only_after,
        reopens_after=file.lead.reopens_after,
    )
