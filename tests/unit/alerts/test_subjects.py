import time
from typing import Any

import pytest

from libs.common import beside
from libs.domain.mentions import MAX_SUBJECTS, emails, phones
from services.alerts.rules.subjects import (
    Kind,
    Subjects,
    Wanted,
    conversations,
    names_somebody_else,
)

SAID = beside.toml(__file__)
ANNA, PHONE, TALK = "anna@example.com", "+48601234567", "5a0e0a3e-43a2-4a0e-9f59-0c9a35f9e0a1"
KEY = "k1:" + "A" * 43 + "="
NEW_KEY = "k2:" + "B" * 42 + "A="


@pytest.mark.parametrize("text", SAID["email"] + SAID["other_email"])
def test_an_email_is_found_in_every_spelling_and_no_other(text: str) -> None:
    assert (ANNA in emails(text)) == (text in SAID["email"])


@pytest.mark.parametrize("text", SAID["phone"] + SAID["other_digits"])
def test_a_phone_is_found_in_every_spelling_and_no_other(text: str) -> None:
    assert (PHONE in phones(text)) == (text in SAID["phone"])


def test_a_conversation_is_found_by_its_field_name() -> None:
    assert conversations({"lead": [{"conversation_id": TALK.upper()}], "id": "x"}) == {TALK}


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


@pytest.mark.parametrize("row", SAID["alert"])
def test_an_alert_only_mentions_whom_it_has_no_contact_of(row: dict[str, Any]) -> None:
    subjects = Subjects(f"{NEW_KEY},{KEY}")
    own = subjects.hashes(Kind.EMAIL, [ANNA]) + subjects.hashes(Kind.CONVERSATION, [TALK])
    given = row["about"], row.get("address"), row.get("key")
    assert subjects.only_mentions(Wanted(own), *given) == row["only_mentions"]


@pytest.mark.parametrize("text", ["a" * 250_000, "@" * 250_000, "1 " * 125_000, "a@b.pl " * 35_000])
def test_hostile_text_costs_linear_time(text: str) -> None:
    start = time.process_time()
    assert len(Subjects(KEY).named_by({"text": text})) <= MAX_SUBJECTS
    assert time.process_time() - start < 1
