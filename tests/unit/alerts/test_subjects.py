import time
from typing import Any

import pytest

from libs.domain.mentions import MAX_SUBJECTS, emails, phones
from services.alerts.rules.subjects import (
    Kind,
    Subjects,
    Wanted,
    conversations,
    names_somebody_else,
)

ANNA = "anna@example.com"
KEY = "k1:" + "A" * 43 + "="
NEW_KEY = "k2:" + "B" * 42 + "A="


@pytest.mark.parametrize(
    "text",
    [
        ANNA,
        "Anna@Example.COM",
        f"<{ANNA}>, mailto:{ANNA}",
        "https://x.pl/?email=anna%40example.com&a=1",
        f"Napisz do {ANNA}.",
        f"'{ANNA}'",
        f"*{ANNA}*",
        f'{{"email":"{ANNA}"}}',
    ],
)
def test_an_email_is_found_in_every_spelling(text: str) -> None:
    assert ANNA in emails(text)


@pytest.mark.parametrize(
    "text", ["joanna@example.com", f"{ANNA}.pl", f"x.{ANNA}", "anna+1@example.com"]
)
def test_another_email_is_not_found(text: str) -> None:
    assert ANNA not in emails(text)


@pytest.mark.parametrize(
    "text",
    [
        "+48 601 234 567",
        "601234567",
        "tel. 601-234-567, po 17",
        "0048601234567",
        "48 601 234 567",
        "(601) 234 567",
        "mieszkanie, 601 234 567 80 m2",
        "+48 601 234 567 80 m2",
        "80 m2 601 234 567",
    ],
)
def test_a_phone_is_found_in_every_spelling(text: str) -> None:
    assert "+48601234567" in phones(text)


@pytest.mark.parametrize("text", ["60123456", "1601234567", "601 234 56", "2026-11-26"])
def test_other_digits_are_not_found(text: str) -> None:
    assert "+48601234567" not in phones(text)


def test_a_conversation_is_found_by_its_field_name() -> None:
    uuid = "5a0e0a3e-43a2-4a0e-9f59-0c9a35f9e0a1"
    assert conversations({"lead": [{"conversation_id": uuid.upper()}], "id": "x"}) == {uuid}


def test_a_row_hashed_with_an_older_key_is_found() -> None:
    (old,) = Subjects(KEY).named_by({"to": ANNA})
    rotated = Subjects(f"{NEW_KEY},{KEY}")
    assert old in rotated.hashes(Kind.EMAIL, [ANNA])
    assert rotated.named_by({"to": ANNA}) != [old]
    assert ANNA not in old


def test_a_row_that_names_another_email_is_recognised() -> None:
    subjects = Subjects(KEY)
    hers = subjects.named_by({"email": ANNA, "phone": "601234567"})
    mine = subjects.hashes(Kind.EMAIL, ["jan@example.com"])
    assert names_somebody_else(hers, mine)
    assert not names_somebody_else(subjects.named_by({"phone": "601234567"}), mine)


TALK = "5a0e0a3e-43a2-4a0e-9f59-0c9a35f9e0a1"
EWA = {"text": f"my friend {ANNA}", "email": "ewa@example.com", "phone": "601234567"}


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ((EWA,), True),
        (({"payload": EWA | {"email": None, "conversation_id": None}},), True),
        (({"text": ANNA, "phone": 601234567},), True),
        (({"text": ANNA}, "ewa@example.com"), True),
        (({"text": ANNA, "once": {"address": "ewa@example.com"}},), True),
        ((EWA | {"email": f"<{ANNA.upper()}>"},), False),
        ((EWA | {"conversation_id": TALK},), False),
        ((EWA | {"by": [{"email": ANNA}]},), False),
        (({"text": ANNA, "email": "", "phone": None},), False),
        (({"text": f"{ANNA}, ewa@example.com"},), False),
        ((EWA, ANNA), False),
        ((EWA, None, ANNA), False),
    ],
)
def test_an_alert_only_mentions_whom_it_has_no_contact_of(
    about: tuple[Any, ...], *, expected: bool
) -> None:
    subjects = Subjects(f"{NEW_KEY},{KEY}")
    own = subjects.hashes(Kind.EMAIL, [ANNA]) + subjects.hashes(Kind.CONVERSATION, [TALK])
    assert subjects.only_mentions(Wanted(own), *about) == expected


@pytest.mark.parametrize("text", ["a" * 250_000, "@" * 250_000, "1 " * 125_000, "a@b.pl " * 35_000])
def test_hostile_text_costs_linear_time(text: str) -> None:
    start = time.process_time()
    assert len(Subjects(KEY).named_by({"text": text})) <= MAX_SUBJECTS
    assert time.process_time() - start < 1
