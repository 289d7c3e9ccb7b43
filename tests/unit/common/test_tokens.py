import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.tokens import Claims, InvalidToken, Tokens, parse_keys

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
OLD = "k0:" + base64.b64encode(b"o" * 32).decode()
NEW = "k1:" + base64.b64encode(b"n" * 32).decode()


def test_a_token_says_what_was_signed() -> None:
    token = Tokens(NEW).sign("zażółć@example.pl", "marketing", "unsubscribe", NOW)
    assert Tokens(NEW).verify(token, "unsubscribe", NOW) == Claims(
        "zażółć@example.pl", "marketing", "unsubscribe", int(NOW.timestamp())
    )


def test_a_token_of_a_retired_key_is_good_while_the_key_is_listed() -> None:
    token = Tokens(OLD).sign("a@b.pl", "marketing", "unsubscribe", NOW)
    assert Tokens(f"{NEW},{OLD}").verify(token, "unsubscribe", NOW).subject == "a@b.pl"
    with pytest.raises(InvalidToken):
        Tokens(NEW).verify(token, "unsubscribe", NOW)


def test_a_token_of_one_action_does_nothing_for_another() -> None:
    token = Tokens(NEW).sign("a@b.pl", "marketing", "unsubscribe", NOW)
    with pytest.raises(InvalidToken):
        Tokens(NEW).verify(token, "erase", NOW)


def test_a_token_older_than_allowed_is_refused() -> None:
    token = Tokens(NEW).sign("a@b.pl", "marketing", "erase", NOW)
    Tokens(NEW).verify(token, "erase", NOW + timedelta(minutes=30), timedelta(minutes=30))
    with pytest.raises(InvalidToken):
        Tokens(NEW).verify(token, "erase", NOW + timedelta(minutes=31), timedelta(minutes=30))


@given(st.data())
def test_any_changed_character_is_refused(data: st.DataObject) -> None:
    token = Tokens(NEW).sign("a@b.pl", "marketing", "unsubscribe", NOW)
    place = data.draw(st.integers(0, len(token) - 1))
    char = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    changed = token[:place] + char + token[place + 1 :]
    if changed != token:
        with pytest.raises(InvalidToken):
            Tokens(NEW).verify(changed, "unsubscribe", NOW)


@given(st.text())
def test_any_text_is_refused_and_never_fails_otherwise(text: str) -> None:
    with pytest.raises(InvalidToken):
        Tokens(NEW).verify(text, "unsubscribe", NOW)


@pytest.mark.parametrize("keys", ["", "k1", "k1:???", "k1:c2hvcnQ=", ":" + NEW, "a.b:" + NEW[3:]])
def test_malformed_keys_are_named_and_not_shown(keys: str) -> None:
    with pytest.raises(ValueError, match="key '"):
        parse_keys(keys)
