import re
import tomllib
from pathlib import Path

import pytest

from libs.domain import company, forms

TABLES = tomllib.loads(Path(__file__).with_name("company.toml").read_text(encoding="utf-8"))
SHIPPED = Path(__file__).parents[3] / "config.example/company.toml"


def test_the_shipped_file_asks_in_each_place_in_polish_and_english() -> None:
    shipped = company.load(SHIPPED)
    for place in ("chat", "form"):
        for language in ("pl", "en"):
            asked = shipped.asking(place, language)
            assert forms.finder(shipped, {})(f" {asked.text}\n") == asked
    assert forms.finder(shipped, {})("Zgadzam się na wszystko.") is None


def test_a_new_version_is_in_use_and_the_old_one_stays_published(tmp_path: Path) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    old = company.load(SHIPPED).asking("chat", "en")
    first = next(each for each in text.split("[[wordings]]") if "chat-2026-11" in each)
    newer = first.replace("chat-2026-11", "chat-2027-01").replace("reminders", "news")
    newer = newer.replace("przypomnień", "nowości")
    path = tmp_path / "company.toml"
    path.write_text(f"{text}\n[[wordings]]{newer}", encoding="utf-8")
    after = company.load(path)
    assert after.asking("chat", "en").version == "chat-2027-01"
    assert forms.finder(after, {})(old.text) == old


@pytest.mark.parametrize(("before", "after", "named"), TABLES["faults"])
def test_a_fault_stops_the_start_and_is_named(
    tmp_path: Path, before: str, after: str, named: str
) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert before in text
    path = tmp_path / "company.toml"
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        company.load(path)
    assert named in str(stopped.value)


def test_the_accent_is_legible_by_day_and_by_night() -> None:
    assert round(company.contrast("#000000", "#ffffff"), 6) == 21
    for accent in ("#0b5cad", "#000000", "#5a4632", "#767676"):
        day, night = (each[:7] for each in company.style(accent).split("--accent:")[1:])
        assert (day, company.contrast(day, "#ffffff") >= company.LEGIBLE) == (accent, True)
        assert company.contrast(night, company.DARK) >= company.LEGIBLE


@pytest.mark.parametrize(("granted", "said"), TABLES["grants"].items())
def test_a_wording_grants_only_what_purposes_name(tmp_path: Path, granted: str, said: str) -> None:
    path = tmp_path / "company.toml"
    more = f'\n[[wordings]]\nversion = "x"\nplace = "form"\ngrants = ["{granted}"]\ntext.pl = "x"\n'
    path.write_text(SHIPPED.read_text(encoding="utf-8") + more, encoding="utf-8")
    with pytest.raises(SystemExit, match=re.escape(said)):
        company.load(path)


def test_the_chat_asks_for_marketing_by_mail_before_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "company.toml"
    more = '\n[[wordings]]\nversion = "x"\nplace = "chat"\ngrants = ["marketing:phone"]\n'
    path.write_text(SHIPPED.read_text(encoding="utf-8") + more + 'text.pl = "x"\n', "utf-8")
    with pytest.raises(SystemExit, match="the last for the chat must grant marketing:email, first"):
        company.load(path)
