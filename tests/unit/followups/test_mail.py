"""The mails of the shipped sequence, and configuration faults that stop the start."""

import base64
import re
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from libs.domain.signed_links import Tokens
from services.followups import config
from services.followups.mails.compose import Mails, Recipient
from services.followups.rules.facts import Facts, person_name
from tests.support.mails import MARKS
from tests.support.shipped import FOLLOWUPS

SHIPPED = Path(__file__).parents[3] / "config.example/followups.toml"
COMPANY = SHIPPED.with_name("company.toml")
TOKENS = Tokens(f"k1:{base64.b64encode(bytes(32)).decode()}")
NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)
FACTS = Facts(email="ala@example.com", name="Ala", area=80, budget=250_000, start="2027-03")


def mails(configured: config.Config) -> Mails:
    return Mails(configured, TOKENS, "https://ostoja.example.com/")


def render(language: str = "pl", facts: Facts = FACTS, step: int = 0) -> dict[str, Any]:
    steps = FOLLOWUPS.sequences["default"]
    to = Recipient(uuid.UUID(int=7), "ala@example.com", language, facts)
    return mails(FOLLOWUPS).render(steps[step], to, NOW)


@pytest.mark.parametrize("language", ["pl", "en"])
@pytest.mark.parametrize("step", [0, 1])
def test_every_mail_has_unsubscribe_links_and_headers(language: str, step: int) -> None:
    mail = render(language, step=step)
    headers = mail["headers"]
    link = headers["List-Unsubscribe"].strip("<>")
    assert link.startswith("https://ostoja.example.com/unsubscribe?token=")
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert link in mail["text"]
    assert link in mail["html"]
    claims = TOKENS.verify(link.partition("token=")[2], "unsubscribe", NOW)
    assert (claims.subject, claims.purpose) == ("ala@example.com", "marketing")


def test_a_mail_names_its_step_in_its_return_path_where_the_domain_has_one() -> None:
    assert "return_path" not in render()
    marked = Mails(FOLLOWUPS, TOKENS, "https://ostoja.example.com/", MARKS)
    to = Recipient(uuid.UUID(int=7), "ala@example.com", "pl", FACTS)
    mail = marked.render(FOLLOWUPS.sequences["default"][0], to, NOW)
    one_click, mailto = mail["headers"]["List-Unsubscribe"].split(", ")
    assert one_click.startswith("<https://")
    for address, action in ((mail["return_path"], "b"), (mailto.split("?")[0][8:], "u")):
        local, _, domain = address.partition("@")
        assert (domain, len(local) <= 64) == ("example.com", True)
        name, _, token = local.partition("+")
        assert (name, token[0], MARKS.step(token)) == ("bounce", action, to.followup_id)


def test_a_step_keeps_its_message_id() -> None:
    assert render("pl")["headers"] == render("pl")["headers"]
    assert render("en")["headers"]["Message-ID"] == f"<{uuid.UUID(int=7)}@ostoja.example.com>"


def test_a_mail_uses_the_lead_s_language_and_facts() -> None:
    assert "Dzień dobry, Pani Alu," in render("pl")["text"]
    assert "250\N{NO-BREAK SPACE}000\N{NO-BREAK SPACE}zł" in render("pl")["text"]
    assert "thank you for talking to us" in render("en")["text"]


@pytest.mark.parametrize("language", ["pl", "en"])
def test_a_mail_names_the_company_and_a_reply_address(language: str) -> None:
    about = FOLLOWUPS.company
    mail = render(language)
    for said in (about.legal_name, about.address, about.nip, about.privacy_url):
        assert said in mail["text"]
        assert said in mail["html"]
    assert mail["headers"]["Reply-To"] == about.contact


@pytest.mark.parametrize("language", ["pl", "en"])
def test_a_phone_of_the_company_is_in_the_footer(tmp_path: Path, language: str) -> None:
    ours = tmp_path / "company.toml"
    text = COMPANY.read_text(encoding="utf-8")
    ours.write_text(re.sub(r"\nphone = .*", "", text), encoding="utf-8")
    configured = config.load(SHIPPED, ours)
    step = configured.sequences["default"][0]
    to = Recipient(uuid.UUID(int=1), "a@example.com", language, Facts())
    mail = mails(configured).render(step, to, datetime.fromtimestamp(0).astimezone())
    without = mail["text"] + mail["html"]
    assert "+48 22 123 45 67, kontakt@" in render(language)["text"]
    assert "+48 22 123 45 67, kontakt@" in render(language)["html"]
    assert "+48 22" not in without


def test_styles_are_inlined_and_nothing_is_fetched() -> None:
    html = render()["html"]
    assert '<p style="margin: 0 0 16px;">' in html
    assert "<style" not in html
    assert re.findall(r"(?:src|href)=\"(?!https://)", html) == []


STRANGE = (
    "Win at http://evil.example", "Win at evil-prize.com", "evil.com", "evil。com", "Anna@evil",
    "<b>x</b>", "a\nBcc: b@example.com", "x" * 61, "call 700 700 700", "Przelej na PL6110901",
    "Wygrała Pani nagrodę proszę teraz do nas zadzwonić", "Anna!", "Anna--", "-Anna", "ⅸ", "①②③",
)  # fmt: skip


@pytest.mark.parametrize("strange", STRANGE)
def test_a_visitor_s_name_cannot_inject_text_into_a_mail(strange: str) -> None:
    mail = render(facts=Facts(name=strange))
    assert mail == render(facts=Facts())


def test_a_subject_contains_no_visitor_input() -> None:
    much = Facts(name="Anna Nowak", wish="evil.com", email="a@example.com")
    for step in (0, 1):
        for language in ("pl", "en"):
            mail = render(language, facts=much, step=step)
            assert mail["subject"] == render(language, facts=Facts(), step=step)["subject"]
            assert "evil" not in f"{mail['text']}{mail['html']}"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Anna Maria Wesołowska-Kryńska", "Anna Maria Wesołowska-Kryńska"),
        ("Żaneta O'Hara", "Żaneta O'Hara"),
        ("  J. Kowalski ", "J Kowalski"),
        ("Łucja", "Łucja"),
        ("Anna - Kowalska", "Anna - Kowalska"),
        ("李 小龙", "李 小龙"),
        ("Олена Шевченко", "Олена Шевченко"),
        *((strange, None) for strange in STRANGE),
    ],
)
def test_a_name_consists_of_letters(given: str, name: str | None) -> None:
    assert person_name(given) == name


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{ nmae }}", "nmae"),
        ("{% if area %}{{ budget|length }}{% endif %}", "TypeError"),  # only some is known
        ("{% if not name and area %}{{ 1 / 0 }}{% endif %}", "ZeroDivisionError"),
    ],
)
def test_a_template_that_does_not_render_stops_the_start_with_its_name(
    tmp_path: Path, template: str, named: str
) -> None:
    shutil.copytree(config.SHIPPED_TEMPLATES, tmp_path / "templates")
    (tmp_path / "templates/last_word.en.txt").write_text(template, encoding="utf-8")
    text = SHIPPED.read_text(encoding="utf-8")
    broken = tmp_path / "followups.toml"
    broken.write_text('templates = "templates"\n' + text, encoding="utf-8")
    with pytest.raises(SystemExit, match=rf"last_word \(en\) of sequence default.*{named}"):
        mails(config.load(broken, COMPANY))
