"""Submissions of forms as bytes: what is read, and what is refused without harm."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from libs.common.http.application import Problem
from libs.domain import forms
from services.gateway.door.clients import Client, IpSource, Role
from services.gateway.intake.forms.submission import (
    MOST_PARTS,
    LeadRequest,
    of_plain_form,
    posted,
    without_query,
)
from tests.support.shipped import EXAMPLE

ROOT = EXAMPLE.parent
AT = datetime(2026, 11, 25, 10, 15, 30, 123456, tzinfo=UTC)
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=xyz"


def multipart(*parts: str) -> bytes:
    return "".join(f"--xyz\r\n{part}\r\n" for part in parts).encode() + b"--xyz--\r\n"


def part(name: str, value: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'


def test_both_encodings_of_a_page_say_the_same() -> None:
    wanted = {"form": "contact", "message": "Łazienka\r\ni kuchnia", "empty": ""}
    encoded = b"form=contact&message=%C5%81azienka%0D%0Ai+kuchnia&empty="
    assert posted(encoded, URLENCODED) == wanted
    assert posted(multipart(*(part(*each) for each in wanted.items())), MULTIPART) == wanted


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"a=1&a=2", URLENCODED, 422),
        (b"a=%00", URLENCODED, 422),
        (b"&".join(b"a%d=1" % n for n in range(MOST_PARTS + 1)), URLENCODED, 400),
        (multipart(part("a", "1"), part("a", "2")), MULTIPART, 422),
        (multipart(*(part(f"a{n}", "1") for n in range(MOST_PARTS + 1))), MULTIPART, 422),
    ],
)
def test_a_body_that_is_no_form_is_refused(body: bytes, content_type: str, status: int) -> None:
    with pytest.raises(Problem) as refused:
        posted(body, content_type)
    assert refused.value.status == status


def plain(**given: str) -> str:
    return str(of_plain_form({"form": "contact"} | given, "pl", "2026-11-27").lead_id)


def test_the_same_content_is_the_same_lead_on_one_day_or_with_one_key() -> None:
    assert plain(email="a@b.pl") == plain(email="a@b.pl")
    assert plain(email="a@b.pl", key="k") == plain(email="a@b.pl", key="k")


def test_other_content_another_key_and_another_form_are_other_leads() -> None:
    different = [
        plain(email="a@b.pl"),
        plain(email="c@b.pl"),
        plain(email="a@b.pl", key="k"),
        plain(email="a@b.pl", key="l"),
        plain(email="a@b.pl", form="other"),
        plain(**{"email": "a@b.pl", "consent.marketing": "x"}),
    ]
    assert len(set(different)) == len(different)


def test_a_submission_is_published_as_its_contract_says() -> None:
    wanted = json.loads((ROOT / "tests/contracts/lead.submit.json").read_text(encoding="utf-8"))
    form = forms.load(EXAMPLE / "forms.toml")["contact"]
    given = LeadRequest.model_validate_json(
        json.dumps(
            {
                "form": "contact",
                "form_version": "1",
                "language": "pl",
                "fields": {
                    "name": "Ala Nowak",
                    "email": "Ala@example.com",
                    "phone": "600 700 800",
                    "area": 80,
                    "message": "Remont kuchni",
                },
                "consents": {"marketing": form.shown("pl", AT.date())[0].sha256},
                "notice_version": "2026-11",
                "page": "https://www.ostoja-wnetrza.example/kontakt?utm=x",
                "agreed_at": "2026-11-25T11:15:29+01:00",
            }
        )
    ).submission("k" * 16, b"{}")
    found = form.read(given.fields, given.form_version)
    wordings, missing = form.published(given.consents, AT.date(), timedelta(days=30))
    client = Client("203.0.113.7", IpSource.PEER, Role.PUBLIC)
    message = given.message(found, wordings, missing, None, client, "Mozilla/5.0", AT)
    assert message == wanted | {"id": str(given.lead_id)}


@pytest.mark.parametrize(
    ("page", "kept"),
    [
        ("https://a.example/kontakt?email=anna%40b.pl#x", "https://a.example/kontakt"),
        ("https://user:secret@a.example/", "https://a.example/"),
        ("file:///home/anna/x.html", None),
        ("https://[", None),
        (None, None),
    ],
)
def test_what_may_be_about_the_person_is_cut_from_a_page(
    page: str | None, kept: str | None
) -> None:
    assert without_query(page) == kept
