"""forms.toml: what it refuses at the start, and what it reads from a submission."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from libs.common import beside
from libs.domain import forms
from libs.domain.company import Wording
from libs.domain.forms import Form
from tests.support.shipped import EXAMPLE, whole

TABLE = beside.toml(__file__, "forms.toml")
CONTACT = forms.load(EXAMPLE / "forms.toml")["contact"]
TODAY = date(2026, 11, 27)
GRACE = timedelta(days=30)


def shipped() -> Any:
    return whole("forms")["forms"]["contact"]


def changed(change: Callable[[Any], object]) -> Form:
    document = shipped()
    change(document)
    return Form.model_validate(document)


def test_the_shipped_file_is_accepted() -> None:
    assert CONTACT.purposes == ["marketing"]


def put(document: Any, at: str, value: Any) -> None:
    *outer, last = (int(each) if each.isdigit() else each for each in at.split("."))
    for each in outer:
        document = document[each]
    if value is None:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize("row", TABLE["refused"], ids=lambda row: row["at"])
def test_a_start_refuses(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=row["told"]):
        changed(lambda form: put(form, row["at"], row.get("put")))


def versions(form: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = form["consents"][0]["versions"]
    return found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda f: versions(f).append({"version": "2026-11", "pl": "Inna treść", "en": "Other"}),
            "two wordings of one version",
        ),
        (
            lambda f: versions(f).append(versions(f)[0] | {"version": "2027-01"}),
            "the same text twice",
        ),
        (lambda f: f.update(consents=[], fields=f["fields"][3:]), "needs a field with fact"),
        (
            lambda f: f["fields"].extend({"name": f"m_{n}", "type": "hidden"} for n in range(40)),
            "at most 40",
        ),
    ],
)
def test_a_start_refuses_what_does_not_go_together(
    change: Callable[[Any], object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        changed(change)


@pytest.mark.parametrize(("name", "given", "kept"), TABLE["kept"])
def test_a_value_is_kept_in_its_normal_form(name: str, given: str, kept: str) -> None:
    found = CONTACT.read({"email": "a@example.com", name: given}, None)
    assert (found.values[name], found.faults) == (kept, {})


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("email", "anna", "email"),
        ("email", "", "contact"),
        ("phone", "12", "phone"),
        ("budget", "dużo", "number"),
        ("start", "kiedyś", "select"),
        ("name", "x" * 201, "long"),
        ("message", "x" * 4001, "long"),
        ("colour", "red", "unknown"),
        ("consent.marketing", "x", "unknown"),
    ],
)
def test_a_fault_is_named_at_its_field(name: str, given: str, fault: str) -> None:
    assert CONTACT.read({"email": "a@example.com", name: given}, "1").faults == {name: fault}


def test_an_older_page_loses_no_field_and_is_asked_for_no_new_one() -> None:
    found = CONTACT.read({"phone": "601234567", "colour": "red"}, "0")
    assert found.faults == {}
    assert found.values == {"phone": "+48601234567", "colour": "red"}


def test_a_lead_without_a_contact_is_asked_for_one_whatever_its_version() -> None:
    assert CONTACT.read({"name": "Anna"}, "0").faults == {"email": "contact"}


def test_many_fields_are_not_read_one_by_one() -> None:
    given = {f"field_{n}": "x" for n in range(41)}
    assert CONTACT.read(given, "0").faults == {"fields": "many"}


def ended(days_ago: int) -> tuple[Form, Wording]:
    def change(form: Any) -> None:
        old = form["consents"][0]["versions"][0]
        old["ended"] = TODAY - timedelta(days=days_ago)
        form["consents"][0]["versions"].append(
            {"version": "2027-01", "pl": "Nowa treść", "en": "A new text"}
        )

    form = changed(change)
    return form, form.consents[0].wordings()[0][1]


def test_a_wording_that_ended_counts_for_thirty_days() -> None:
    form, old = ended(29)
    assert form.published({"marketing": old.sha256}, TODAY, GRACE) == ([old], [])
    form, old = ended(31)
    assert form.published({"marketing": old.sha256}, TODAY, GRACE) == ([], ["marketing"])


def test_a_wording_that_ended_is_not_shown() -> None:
    form, _ = ended(1)
    assert [wording.text for wording in form.shown("pl", TODAY)] == ["Nowa treść"]


def test_an_unknown_hash_records_no_consent() -> None:
    assert CONTACT.published({"marketing": "0" * 64}, TODAY, GRACE) == ([], ["marketing"])
    assert CONTACT.published({"newsletter": "0" * 64}, TODAY, GRACE) == ([], ["newsletter"])


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example/b?c", "https://a.example"),
        ("https://a.example:443/", "https://a.example"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("mailto:a@example.com", None),
        ("https://a.example:x/", None),
    ],
)
def test_an_origin_is_what_a_browser_sends(url: str, origin: str | None) -> None:
    assert forms.origin_of(url) == origin
