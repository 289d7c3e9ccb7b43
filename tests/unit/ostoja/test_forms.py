"""`ostoja forms`: its code is a form that it finds no fault with, and each change is named."""

import html as markup
import json
from pathlib import Path
from typing import Any

import pytest

from libs.common import beside
from ostoja import form_page, snippets

DIFFERS = beside.toml(__file__, "forms.toml")["differs"]
URL = "https://ostoja.example.com"
FORM: dict[str, Any] = json.loads(Path(__file__).with_name("form.json").read_text(encoding="utf-8"))
for _field in FORM["fields"]:
    _field |= {"max_length": 200, "options": [{"value": "asap", "label": "Soon"}]}


def faults(page: str, **changes: Any) -> list[str]:
    (found,) = form_page.forms_of(page)
    return form_page.differences(found, FORM | changes, URL)


@pytest.mark.parametrize("kind", ["html", "wordpress"])
def test_a_pasted_form_has_no_fault(kind: str) -> None:
    assert faults(snippets.AS[kind](FORM, URL)) == []


@pytest.mark.parametrize("row", DIFFERS, ids=lambda row: row["fault"])
def test_a_page_that_differs_is_told_where(row: dict[str, str]) -> None:
    page = snippets.AS["html"](FORM, URL)
    assert row["old"] in page
    assert any(row["fault"] in each for each in faults(page.replace(row["old"], row["new"])))


def test_a_wording_that_has_changed_since_is_named() -> None:
    newer = FORM["consents"][0] | {"sha256": "c" * 64, "text": "Another wording."}
    found = faults(snippets.AS["html"](FORM, URL), consents=[newer])
    assert [each.partition(":")[0] for each in found] == ["consent.marketing"] * 2


def test_labels_by_id_count_and_other_forms_do_not() -> None:
    page = (
        '<form action="/search"><input name="q"></form>'
        '<form action="https://ostoja.example.com/api/leads"><input name="form" value="contact">'
        '<label for="e">E-mail</label> <input id="e" name="email"></form>'
    )
    (found,) = form_page.forms_of(page)
    assert [(each["name"], each["label"]) for each in found.controls] == [
        ("form", ""),
        ("email", "E-mail"),
    ]


@pytest.mark.parametrize("kind", snippets.AS)
def test_no_text_of_a_form_becomes_markup(kind: str) -> None:
    code = snippets.AS[kind](FORM, URL)
    assert "<offers>" not in code or f'"{FORM["consents"][0]["text"]}"' in code
    if kind in {"html", "wordpress", "fetch"}:
        assert markup.escape(FORM["consents"][0]["text"]) in code
