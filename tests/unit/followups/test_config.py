"""What is shipped, what a company's followups.toml changes of it, and how a mistake is told."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from services.followups import config
from services.followups.reading.routing import Route
from tests.support import dialogues
from tests.support.shipped import EXAMPLE, FOLLOWUPS

ROOT = Path(__file__).parents[3]
MUST = (EXAMPLE / "followups.toml").read_text(encoding="utf-8")
WHOLE = "a878ceaa"
"""The last commit whose config.example/followups.toml had every text and word."""
GUARANTEE = "[routes.guarantee]\n"
ASKS_NOTHING = '[routes.asks_nothing]\nwords = ["sad"]\noffers = "complaint"'


def load(tmp_path: Path, more: str, must: str = MUST) -> config.Config:
    path = tmp_path / "followups.toml"
    path.write_text(f"{must}\n{more}\n", encoding="utf-8")
    return config.load(path, EXAMPLE / "company.toml", quiet_hours=True)


def routes(configured: config.Config) -> dict[str, Route]:
    return configured.routes._routes


def test_the_example_is_short_and_so_are_its_lines() -> None:
    assert len(MUST.splitlines()) <= 450
    for file in (EXAMPLE / "followups.toml", *config.SHIPPED.glob("*.toml")):
        assert max(map(len, file.read_text(encoding="utf-8").splitlines())) <= 200, file


def test_a_company_changes_a_text_a_word_and_a_route_by_name(tmp_path: Path) -> None:
    ours = load(
        tmp_path,
        """
[dialogue]
works = ["...", "saun"]
texts.pl = { thanks = "Do usłyszenia.", tap_own = "Karta" }
texts.en.tap_own = "A card"
taps.opening = { own = "own", quote = "" }
[words]
defect = ["...", "zmarszczy*"]
[routes]
discount = false
[routes.guarantee]
answer.pl = "Trzy lata gwarancji."
[routes.own]
words = ["kart* gwarancyjn*"]
answer = { pl = "Kartę przygotuje biuro.", en = "Our office will prepare it." }
""",
    )
    shipped, found = routes(FOLLOWUPS), routes(ours)
    assert ours.works == (*FOLLOWUPS.works, "saun")
    changed = {"thanks": "Do usłyszenia.", "tap_own": "Karta"}
    assert ours.texts["pl"] == {**FOLLOWUPS.texts["pl"], **changed}
    assert ours.texts["en"] == {**FOLLOWUPS.texts["en"], "tap_own": "A card"}
    assert found.keys() ^ shipped.keys() == {"discount", "own"}
    assert found["guarantee"].answer == {
        **shipped["guarantee"].answer,
        "pl": "Trzy lata gwarancji.",
    }
    assert found["guarantee"].words == shipped["guarantee"].words
    assert [*ours.taps.opening] == ["own", "quote"]
    heard = "montowaliście mi panele i się zmarszczyły"
    assert "complaint" not in {route.name for route in FOLLOWUPS.routes.find(heard)}
    assert "complaint" in {route.name for route in ours.routes.find(heard)}


def test_an_answer_of_the_company_replaces_a_shipped_one(tmp_path: Path) -> None:
    assert routes(FOLLOWUPS)["guarantee"].answer["en"].startswith("We give a guarantee of 5 years")
    path, text = tmp_path / "company.toml", (EXAMPLE / "company.toml").read_text(encoding="utf-8")
    path.write_text(text.replace("answers.guarantee", "answers.garantee"), encoding="utf-8")
    with pytest.raises(SystemExit, match="garantee: is no shipped route; did you mean guarantee"):
        config.load(EXAMPLE / "followups.toml", path)


def test_a_route_of_the_company_comes_behind_the_emergencies_and_before_the_rest(
    tmp_path: Path,
) -> None:
    names = [*routes(load(tmp_path, '[routes.own]\nwords = ["own"]'))]
    assert names.index("own") == names.index("emergency") + 1


def test_what_is_left_out_is_not_said(tmp_path: Path) -> None:
    ours = load(tmp_path, "[dialogue]\nhandover = { de = false }")
    assert set(FOLLOWUPS.handover) - set(ours.handover) == {"de"}


def test_a_file_that_was_copied_whole_starts_and_says_what_it_said(tmp_path: Path) -> None:
    named = f"{WHOLE}:config.example/followups.toml"
    text = subprocess.run(
        ["git", "show", named], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    ).stdout
    ours, raw = load(tmp_path, "", must=text), tomllib.loads(text)
    assert [*routes(ours)] == [route["name"] for route in raw["routes"]]
    own = raw["dialogue"]["texts"]["pl"]
    assert {
        name for name in own if "{" not in own[name] and ours.texts["pl"][name] != own[name]
    } == set()
    assert ours.taps.opening.keys() == raw["dialogue"]["taps"]["opening"].keys()
    taps = re.search(r"\[dialogue\.taps\]\n(?:\w+ = .*\n)+", text)
    other = re.search(r'\[\[routes\]\]\nname = "other"\n(?:.+\n)+', text)
    assert taps
    assert other
    before = load(tmp_path, "", must=text.replace(taps[0], "").replace(other[0], ""))
    assert (before.taps.opening, before.taps.area) == ({}, ())
    assert "other" not in routes(before)


def test_each_text_that_the_dialogue_says_is_shipped() -> None:
    source = "".join(
        file.read_text(encoding="utf-8")
        for file in (ROOT / "services/followups/dialogue").glob("*.py")
    )
    scripts = (*FOLLOWUPS.texts.values(), *FOLLOWUPS.handover.values())
    used = set(re.findall(r'(?:script\[|_say\()"([a-z_]+)"', source))
    assert used - {name for script in scripts for name in script} == set()
    assert FOLLOWUPS.texts["pl"].keys() == FOLLOWUPS.texts["en"].keys()
    de, uk, ru = (FOLLOWUPS.handover[language].keys() for language in ("de", "uk", "ru"))
    assert de == uk == ru


FAULTS = [
    ("[lead]\nthreshold = 600", "lead.threshold"),
    ('[hours]\nzone = "Europe/Warsow"', "hours.zone"),
    ('[hours]\nholidays = "XX"', "hours.holidays"),
    ('[hours]\nopens = "20:00"', "opens must be before closes"),
    ('[sequences.default]\nsteps = [{ delay = "soon" }]', "sequences.default.steps.0.delay"),
    ('[lead]\nrules = [{ points = 1, known = ["aera"] }]', "lead.rules"),
    ("[x]\ny = 1", "x: is not known"),
    ('[dialogue.texts.pl]\nclozing = "Dziękuję"', "clozing: is not known; did you mean closing?"),
    ('[dialogue.texts.pl]\ngreeting = "Tu Ola z {company}."', "pl.greeting: must say"),
    ('[dialogue.texts.pl]\ngreeting = "Tu Ola[, automat {company_phone}]."', "pl.greeting: must"),
    ('[dialogue.texts.en]\ngreeting_in_emergency = "Hello."', "en.greeting_in_emergency: must say"),
    ('[dialogue.handover.uk]\ngreeting = "Привіт."', "dialogue.handover.uk.greeting: must say"),
    ('[dialogue.texts.fr]\nthanks = "Merci"', "dialogue.texts.fr: is none of en, pl"),
    ('[dialogue.texts.pl]\nnoted = "{fatcs}"', "dialogue.texts.pl.noted: only by, company"),
    ('[dialogue.texts.pl]\nnoted = "{facts"', "dialogue.texts.pl.noted: expected '}'"),
    (f'{GUARANTEE}answer.pl = "{{facts}}"', "routes.guarantee.answer.pl: only by, company"),
    (f'{GUARANTEE}answer.de = "Ja"\nanswer.fr = "Oui"', "routes.guarantee.answer"),
    (f'{GUARANTEE}words = ["{{we_dit}}"]', "unknown [words] list we_dit; did you mean we_did?"),
    ('[words]\nlong_ago = ["{gas}"]', "words.long_ago"),
    ('[words]\ndefekt = ["...", "wybrzusz*"]', "words.defekt.0: goes on a shipped list"),
    ("[routes]\ndicsount = false", "is no route, and none is shipped; did you mean discount?"),
    ('[dialogue.taps]\nwish = ["skip"]', "dialogue.taps.wish.0"),
    ('[dialogue.taps]\nwish = ["A flat"]', "dialogue.taps.wish.0"),
    ('[dialogue.taps]\nwish = ["sauna"]', "dialogue.texts.en.tap_sauna: is missing"),
    ('[dialogue.taps]\nopening = { skip = "" }', "dialogue.taps.opening.skip"),
    ('[dialogue.taps]\nopening = { quote = "qoute" }', "opening.quote: unknown route"),
    ("[dialogue.taps]\narea = [30, 100001]", "dialogue.taps.area.1"),
    ("[dialogue.taps]\nbudget = [1000000001]", "dialogue.taps.budget.0"),
    (ASKS_NOTHING, "routes.asks_nothing.offers: offers needs an answer"),
    (f'{GUARANTEE}topic = "waranty"', "routes.guarantee.topic: unknown topic waranty"),
    ("routes = 5", "routes"),
    ("[routes]\nguarantee = 5", "routes.guarantee: is no route"),
    ("dialogue = 5", "dialogue"),
    ("[lead", "followups.toml:"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "named"), FAULTS)
def test_a_mistake_stops_the_start_and_is_told_with_its_line(
    tmp_path: Path, mistake: str, named: str
) -> None:
    table = mistake.partition("\n")[0]
    must = MUST
    if not table.startswith("["):
        must, mistake = f"{table}\n{must}", ""
    with pytest.raises(SystemExit) as stopped:
        load(tmp_path, mistake, must=must)
    assert named in str(stopped.value)
    assert re.match(r".*followups\.toml:\d+: ", str(stopped.value)), str(stopped.value)


def test_the_chat_finds_its_words_without_any_of_the_company(tmp_path: Path) -> None:
    assert "992" in dialogues.hold(["czuję gaz w kuchni"]).reply


def test_each_recipe_of_the_docs_is_accepted(tmp_path: Path) -> None:
    page = (ROOT / "docs/words.md").read_text(encoding="utf-8")
    recipes = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(recipes) >= 5
    for recipe in recipes:
        load(tmp_path, recipe)
