"""`ostoja forms`: its code is a form that it finds no fault with, and each change is named."""

import html as markup
import json
from pathlib import Path
from typing import Any

import pytest

from ostoja import form_page, snippets

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


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("https://ostoja.example.com/api", "http://old.example/api", "action is"),
        ('name="form_version" value="2"', 'name="form_version" value="1"', "form_version is '1'"),
        ('name="issued"', 'name="key"', "issued: is missing"),
        ("<label>E-mail", "<label>Mail", "email: the label is 'Mail'"),
        ('name="email"', 'name="mail"', "email: is required and missing"),
        ("a" * 64, "b" * 64, "the hash is not that of today's wording"),
        ("I agree to receive", "I agree to get", "people read"),
        ('type="checkbox"', 'type="checkbox" checked', "ticked beforehand"),
        ('type="checkbox"', 'type="checkbox" required', "is required (GDPR"),
        ('name="consent.marketing"', 'name="consent.news"', "no one can agree"),
        ('name="second_name"', 'name="third_name"', "third_name: the form has no such field"),
    ],
)
def test_a_page_that_differs_is_told_where(old: str, new: str, fault: str) -> None:
    page = snippets.AS["html"](FORM, URL)
    assert old in page
    assert any(fault in each for each in faults(page.replace(old, new)))


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
