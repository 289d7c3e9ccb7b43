"""Personal links: the same each time, and no two alike."""

import re
from uuid import UUID

from services.alerts.rules.case import Links, hashed

CASE = UUID("9b2e8a52-0f0d-5c3b-8a44-1f6d3a1f2b7c")
LINKS = Links(b"k" * 32, "https://ostoja.example")


def test_a_token_fits_an_sms_and_is_written_the_same_again() -> None:
    token = LINKS.token(CASE, "anna", 0)
    assert re.fullmatch(r"[\w-]{22}", token)
    assert token == LINKS.token(CASE, "anna", 0)
    assert LINKS.url(token) == f"https://ostoja.example/a/{token}"


def test_another_case_person_generation_or_key_has_another_token() -> None:
    others = {
        LINKS.token(UUID(int=1), "anna", 0),
        LINKS.token(CASE, "ewa", 0),
        LINKS.token(CASE, "anna", 1),
        Links(b"j" * 32, "https://ostoja.example").token(CASE, "anna", 0),
    }
    assert len(others | {LINKS.token(CASE, "anna", 0)}) == 5


def test_neither_the_hash_nor_a_log_shows_the_token_or_the_key() -> None:
    token = LINKS.token(CASE, "anna", 0)
    assert token.encode() not in hashed(token)
    assert "kkk" not in repr(LINKS)
