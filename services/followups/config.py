"""What followups does, says and understands: shipped/*.toml, and what followups.toml changes of it.

Both are read and checked once at start. docs/words.md says how they are merged.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from libs.common.process.config_file import ConfigFile, Duration, FaultError, did_you_mean, over
from libs.domain.company import Company, CompanyFile, split_pair, twice
from libs.domain.company import load as load_company
from libs.domain.forms import FindWording, Forms, finder
from libs.domain.hours import Hours
from libs.domain.hours_section import HoursSection
from services.followups import dialogue
from services.followups.reading import phrases, place
from services.followups.reading.routing import Route, Routes, Topic
from services.followups.rules.fact_texts import describe_start, filled, without_optional
from services.followups.rules.facts import MAX_AREA, MAX_BUDGET, MIN_AREA, Facts
from services.followups.rules.score import TOP_SCORE, Rule
from services.followups.rules.sequence import due_times

SHIPPED_TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("pl", "en")
"""Languages of the dialogue. Texts and templates exist for each."""


HANDOVER = ("de", "uk", "ru")
"""Languages without a form: a person answers."""


SHIPPED = Path(__file__).parent / "shipped"


def _shipped() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(SHIPPED.glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        found = over(found, _in_language(raw, path.stem[-2:]) if "." in path.stem else raw)
    return found


def _in_language(raw: dict[str, Any], language: str) -> dict[str, Any]:
    """Return texts.<language>.toml as followups.toml has it: `answer.pl = …`."""
    part = "texts" if language in LANGUAGES else "handover"
    return {"dialogue": {part: {language: raw.pop("texts")}}} | {
        section: {
            name: {key: {language: text} for key, text in texts.items()}
            for name, texts in tables.items()
        }
        for section, tables in raw.items()
    }


_SHIPPED = _shipped()


EACH = f"needs each of {', '.join(LANGUAGES)}, and may have {', '.join(HANDOVER)}"


def _in_each_language(texts: dict[str, Any]) -> dict[str, Any]:
    if set(texts) - set(HANDOVER) != set(LANGUAGES):
        raise ValueError(EACH)
    return texts


IN_ANY_TEXT = {
    "company", "legal_name", "privacy_url", "company_email", "company_address", "company_nip",
    "company_contacts", "company_phone", "company_hours", "company_prices", "company_included",
    "company_durations", "company_quote", "company_towns", "by", "now", "said",
}  # fmt: skip
"""`{by}`: until when people answer what is said now; `{now}`: whether they are there;
`{said}`: what the visitor said, if it can be quoted."""


def _named(text: str) -> set[str]:
    return {part for _, part, *_ in Formatter().parse(text) if part is not None}


def _check_braces(where: tuple[str, ...], text: str, shipped: str = "{contact}") -> None:
    """A text may have in braces what the shipped one has, and the company's data."""
    known = {*IN_ANY_TEXT, *_named(shipped)}
    try:
        strange = ", ".join(sorted(_named(text) - known))
    except ValueError as error:
        raise FaultError(where, str(error)) from None
    if strange:
        raise FaultError(where, f"only {', '.join(sorted(known))} may be in braces, not {strange}")


_WEEK = 7


def _clock(at: time) -> str:
    return f"{at.hour}:{at:%M}"


TEXTS = ("answer", "ask", "told", "told_without_email", "again")
PerLanguage = AfterValidator(_in_each_language)
Language = Annotated[str, Field(pattern=f"^({'|'.join(LANGUAGES)})$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Texts = dict[str, Annotated[str, Field(min_length=1, max_length=1000)]]
Texts = Annotated[_Texts, PerLanguage]


class _Rule(_Section):
    points: int = Field(ge=-TOP_SCORE, le=TOP_SCORE)
    reason: Texts
    known: tuple[Annotated[str, Field(pattern=f"^({'|'.join(Facts._fields)})$")], ...] = Field(
        min_length=1
    )
    at_least: float | None = None


class Lead(_Section):
    threshold: int = Field(ge=1, le=TOP_SCORE)
    rules: tuple[_Rule, ...]
    update_after: Duration = timedelta(seconds=30)
    answer_within: Duration = timedelta(hours=8)
    contact_only_after: Duration = timedelta(minutes=10)
    reopens_after: Duration = timedelta(days=30)


def _way(text: str) -> str:
    if text == "...":
        raise ValueError("goes on a shipped list, and none has this name")
    if phrases.SIGN.search(text) or "{" in text:
        raise ValueError(f"{text!r}: a list must not contain +, - or another list")
    if fault := phrases.phrase_fault(text):
        raise ValueError(fault)
    return text


Phrase = Annotated[str, Field(max_length=200)]
Ways = Annotated[tuple[Annotated[Phrase, AfterValidator(_way)], ...], Field(min_length=1)]


NO_TOWN = "is not in services/followups/reading/towns.txt"


def _town(text: str) -> str:
    if place.find_all(text) != [text]:
        raise ValueError(f"{text!r} {NO_TOWN}")
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
    area_of_room: Bounds[Annotated[int, Field(ge=MIN_AREA, le=MAX_AREA)]] = ()
    budget: Bounds[Annotated[int, Field(ge=1, le=MAX_BUDGET)]] = ()


Scripts = dict[str, _Texts]
_AUTOMATIC = re.compile("automat|автомат", re.IGNORECASE)
NOT_A_PERSON = (
    "must say that an automatic assistant writes, with a word like the shipped one's automat…: "
    "people must know that they write with a machine (AI Act, Art. 50)"
)


class _Dialogue(_Section):
    instructions: str = ""
    """Ignored: the prompt of a model that once worded replies; older files have it."""
    works: tuple[Annotated[str, Field(min_length=3, pattern=r"^[^\sA-Z]+$")], ...]
    towns: tuple[Annotated[str, AfterValidator(_town)], ...] = ()
    taps: _Taps = _Taps()
    retired: tuple[str, ...] = ()
    texts: Scripts
    handover: Scripts = {}

    @model_validator(mode="after")
    def _texts_are_known(self) -> Self:
        chips = [f"tap_{name}" for name in (*self.taps.opening, *self.taps.wish)]
        for part, scripts in (("texts", self.texts), ("handover", self.handover)):
            shipped: dict[str, dict[str, str]] = _SHIPPED["dialogue"][part]
            for language, said in scripts.items():
                if language not in shipped:
                    raise FaultError([part, language], f"is none of {', '.join(shipped)}")
                known = dict.fromkeys(chips if part == "texts" else (), "") | shipped[language]
                script = {n: text for n, text in said.items() if n not in self.retired}
                for name in (*script, *known):
                    if name not in script:
                        raise FaultError([part, language, name], "is missing: it stands on a chip")
                    if name not in known:
                        near = did_you_mean(name, [*known])
                        raise FaultError([part, language, name], f"is not known{near}")
                    _check_braces((part, language, name), script[name], known[name])
                    if name.startswith("greeting") and not _AUTOMATIC.search(
                        without_optional(script[name])  # which may stay unsaid
                    ):
                        raise FaultError([part, language, name], NOT_A_PERSON)
        return self


class Step(_Section):
    delay: Duration
    template: str = Field(pattern=r"^[a-z0-9_-]{1,60}$")
    subject: Annotated[dict[str, str], PerLanguage]


class _Sequence(_Section):
    steps: tuple[Step, ...] = Field(min_length=1, max_length=50)


def _in_order(routes: Any) -> Any:
    """Read `[[routes]]` of an older file, which has all; else put its own behind the emergencies.

    Of several that match, the first one counts.
    """
    if isinstance(routes, dict):

        def place(name: str) -> tuple[bool, bool]:
            return not routes[name].get("first"), name in _SHIPPED["routes"]

        for name, route in routes.items():
            if not isinstance(route, dict):
                near = did_you_mean(name, [*_SHIPPED["routes"]])
                raise FaultError([name], f"is no route, and none is shipped{near}")
        return {name: {**routes[name], "name": name} for name in sorted(routes, key=place)}
    if not isinstance(routes, list):
        return routes
    if not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in routes):
        raise ValueError("each needs a name")
    if same := twice(each["name"] for each in routes):
        raise ValueError(f"duplicate name {same}")
    return {each["name"]: each for each in routes}


class _File(_Section):
    site: str = Field(pattern=r"^https?://\S+$")
    default_language: Language = "pl"
    staff_language: Language = "en"
    templates: str | None = None
    hours: HoursSection
    lead: Lead
    dialogue: _Dialogue
    topics: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], Topic]
    words: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], Ways]
    routes: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,60}$")], Route],
        BeforeValidator(_in_order),
    ]
    sequences: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,60}$")], _Sequence]

    @model_validator(mode="after")
    def _what_is_named_exists(self) -> Self:
        for chip, name in self.dialogue.taps.opening.items():
            if name and name not in self.routes:
                raise FaultError(["dialogue", "taps", "opening", chip], f"unknown route {name}")
        for route in self.routes.values():
            for fault, *where in self._faults(route):
                raise FaultError(["routes", route.name, *where], str(fault))
        for section, tables in (("topics", self.topics), ("routes", self.routes)):
            for name, table in tables.items():
                for key in ("label", *TEXTS):
                    texts = getattr(table, key, {})
                    if texts and texts.keys() - HANDOVER != {*LANGUAGES}:
                        raise FaultError([section, name, key], EACH)
                    for language, text in texts.items():
                        _check_braces((section, name, key, language), text)
        return self

    def _faults(self, route: Route) -> Iterator[tuple[str | int, ...]]:
        for key, said in (("words", route.words), ("unless", route.unless)):
            for at, phrase in enumerate(said):
                if fault := phrases.phrase_fault(phrase):
                    yield fault, key, at
                if unknown := sorted(phrases.lists_in(phrase) - set(self.words)):
                    near = did_you_mean(unknown[0], [*self.words])
                    yield f"unknown [words] list {', '.join(unknown)}{near}", key, at
        if not (route.words or route.offers):
            yield "is missing", "words"
        if route.offers and not route.answer:
            yield "offers needs an answer, which asks", "offers"
        if route.offers and route.offers not in self.routes:
            yield f"unknown route {route.offers}", "offers"
        if route.topic is not None and route.topic not in self.topics:
            yield f"unknown topic {route.topic}", "topic"
        if route.topic is not None and route.then != "contact":
            yield 'a route with a topic needs then = "contact"', "topic"


def _file(path: Path, answers: Mapping[str, Mapping[str, str]]) -> _File:
    own = ConfigFile(path)
    said = {name: {"answer": each, "again": each} for name, each in answers.items()}
    shipped = over(_SHIPPED, {"routes": said})
    if isinstance(own.raw.get("routes"), list):  # it was copied whole, before there was a release
        shipped = over(shipped, {"dialogue": {"taps": False}})
    try:
        return _File.model_validate(over(shipped, own.raw, whole={"opening"}))
    except ValidationError as error:
        raise SystemExit("\n".join(own.faults(error, _File))) from None


@dataclass(frozen=True, slots=True)
class Config:
    company: Company
    published: FindWording
    """Finds a published wording; None if the company has not published it."""
    site: str
    default_language: str
    staff_language: str
    templates: Path
    lead: Lead
    office: Hours
    """When people answer."""
    hours: Hours
    """When follow-ups leave."""
    rules: tuple[Rule, ...]
    works: tuple[str, ...]
    texts: Mapping[str, Mapping[str, str]]
    handover: Mapping[str, Mapping[str, str]]
    sequences: Mapping[str, tuple[Step, ...]]
    topics: Mapping[str, Topic]
    routes: Routes
    kinds: tuple[str, ...]
    """Routes that may be asked about."""
    taps: dialogue.Taps

    def today(self, now: datetime) -> date:
        return now.astimezone(self.hours.zone).date()

    def said(self, reply: str, language: str | None, now: datetime) -> str:
        """Return a reply with until when people answer, and whether they are there."""
        if "{by}" not in reply and "{now}" not in reply:
            return reply
        language = language or self.default_language
        script = {**self.texts, **self.handover}[language]
        is_there = script["now_open" if self.office.is_open(now) else "now_closed"]
        said = reply.replace("{by}", self._answered_by(now, script, language))
        return said.replace("{now}", is_there)

    def _answered_by(self, now: datetime, script: Mapping[str, str], language: str) -> str:
        """Say when `answer_within` of open time has passed, up to a full hour: `jutro do 12:00`."""
        end = self.office.add(now, self.lead.answer_within).astimezone(self.office.zone)
        hour = end.replace(minute=0, second=0, microsecond=0)
        if hour < end:
            hour += timedelta(hours=1)
        time = min(hour.time(), self.office.closes or hour.time())
        days = (end.date() - now.astimezone(self.office.zone).date()).days
        day = script["by_days"].split("|")[end.weekday()]
        if days >= _WEEK:
            day = describe_start(end.date().isoformat(), language)
        name = {0: "by_today", 1: "by_tomorrow"}.get(days, "by_day")
        return script[name].format(day=day, time=_clock(time))

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


_ASKS_CONSENT = ("ask_consent", "ask_consent_early", "ask_consent_again")
Known = Mapping[str, str]
"""What may stand in braces in any text, in one language; empty: it is not known."""


def _known(company: Company, hours: HoursSection, language: str, script: Known) -> Known:
    days = script["hours_daily" if hours.weekends else "hours_weekdays"]
    return {
        "company": company.name,
        "legal_name": company.legal_name,
        "privacy_url": company.privacy_url,
        "company_email": company.contact,
        "company_address": company.address,
        "company_nip": company.nip,
        "company_contacts": company.contacts,
        "company_phone": company.phone or "",
        "company_hours": days.format(opens=_clock(hours.opens), closes=_clock(hours.closes)),
        "company_prices": "{prices}" if language in company.prices else "",  # filled in by a turn
        "company_durations": "{durations}" if language in company.durations else "",
        "company_included": company.included.get(language, ""),
        "company_quote": company.quote.get(language, ""),
        "company_towns": ", ".join(company.towns),
    }


def _about(known: Known, text: str) -> str:
    """Fill in the company's data; placeholders that a turn fills stay in braces."""
    later = {"said", "contact", *(n for n in ("company_prices", "company_durations") if known[n])}
    return filled(text, known, later)


def _on_consent(company: CompanyFile, language: str, script: Known) -> dict[str, str]:
    """Return the wording in use, and what stands on the chip of each thing that it grants."""
    asks = company.asking("chat", language)
    chips = {f"tap_{asks.purpose}": script["tap_yes"]}
    if len(asks.grants) > 1:
        for each in asks.grants:
            name, channel = split_pair(each)
            labels = company.purposes[name].label if name in company.purposes else {"": name}
            label = labels.get(language) or next(iter(labels.values()))
            chips[f"tap_{each}"] = script[f"tap_agree_{channel}"].format(purpose=label)
        chips |= dict.fromkeys(_ASKS_CONSENT, script["ask_consent_each"])
        chips["ask_consent_short"] = script["ask_consent_left"]
    return chips | {"consent_wording": asks.text}


def _route(known: Mapping[str, Known], topics: Mapping[str, Topic], route: Route) -> Route:
    topic = topics[route.topic] if route.topic else None
    texts = {key: getattr(route, key) or getattr(topic, key, {}) for key in TEXTS}
    said: dict[str, Any] = {
        key: {name: _about(known[name], text) for name, text in each.items() if name in known}
        for key, each in texts.items()
    }
    return replace(route, at_once=topic is not None and topic.at_once, **said)


def load(
    path: Path, company_path: Path, forms: Forms | None = None, *, quiet_hours: bool = True
) -> Config:
    """Read followups.toml and company.toml.

    :param forms: they also have wordings
    :raises SystemExit: names the file and every fault in it
    """
    company, about = load_company(company_path), ConfigFile(company_path)
    for name in company.company.answers:
        if name not in _SHIPPED["routes"]:
            near = did_you_mean(name, [*_SHIPPED["routes"]])
            raise SystemExit(
                about.fault(["company", "answers", name], f"is no shipped route{near}")
            )
    file = _file(path, company.company.answers)
    office = company.hours or file.hours
    if strange := [town for town in company.company.towns if place.find_all(town) != [town]]:
        raise SystemExit(about.fault(["company", "towns"], f"{strange[0]!r} {NO_TOWN}"))
    hours = file.hours.hours
    scripts = {**file.dialogue.texts, **file.dialogue.handover}
    known = {
        language: _known(company.company, office, language, script)
        for language, script in scripts.items()
    }
    said = {
        language: {name: _about(known[language], text) for name, text in script.items()}
        for language, script in scripts.items()
    }
    for language in file.dialogue.texts:
        said[language] |= _on_consent(company, language, said[language])
    texts = {language: said[language] for language in file.dialogue.texts}
    handover = {language: said[language] for language in file.dialogue.handover}
    routes = Routes([_route(known, file.topics, each) for each in file.routes.values()], file.words)
    towns, chips = company.company.towns or file.dialogue.towns, dict(file.dialogue.taps)
    return Config(
        company=company.company,
        published=finder(company, forms or {}),
        site=file.site,
        default_language=file.default_language,
        staff_language=file.staff_language,
        templates=path.parent / file.templates if file.templates else SHIPPED_TEMPLATES,
        office=office.hours,
        hours=hours if quiet_hours else replace(hours, opens=None, closes=None),
        lead=file.lead,
        rules=tuple(
            Rule(rule.points, rule.reason[file.staff_language], tuple(rule.known), rule.at_least)
            for rule in file.lead.rules
        ),
        works=file.dialogue.works,
        texts=texts,
        handover=handover,
        sequences={name: sequence.steps for name, sequence in file.sequences.items()},
        topics=file.topics,
        routes=routes,
        kinds=tuple({route.offers for route in file.routes.values() if route.offers}),
        taps=dialogue.Taps(
            texts,
            handover,
            file.default_language,
            routes,
            file.dialogue.works,
            towns,
            prices=company.company.prices,
            durations=company.company.durations,
            grants=company.asking("chat", file.default_language).grants,
            **chips,
        ),
    )
