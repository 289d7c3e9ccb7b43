import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.domain.signed_links import Claims, InvalidToken, Tokens, parse_keys

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
OLD = "k0:" + base64.b64encode(b"o" * 32).decode()
NEW = "k1:" + base64.b64encode(b"n" * 32).decode()
ROTATED = Tokens(f"{NEW},{OLD}")
ACTIONS = ("unsubscribe", "erasure", "opt-in")
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

subjects = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
actions = st.sampled_from(ACTIONS)


def unpacked(token: str) -> tuple[str, str, str]:
    key_id, payload, signature = token.split(".")
    return key_id, payload, signature


def refused(token: str, action: str = "unsubscribe", tokens: Tokens = ROTATED) -> None:
    with pytest.raises(InvalidToken):
        tokens.verify(token, action, NOW)


@given(subjects, subjects, actions)
def test_a_token_returns_the_signed_claims(subject: str, purpose: str, action: str) -> None:
    token = ROTATED.sign(subject, purpose, action, NOW)
    assert ROTATED.verify(token, action, NOW) == Claims(
        subject, purpose, action, int(NOW.timestamp())
    )


def test_a_token_needs_no_escaping_in_a_link() -> None:
    token = ROTATED.sign("zażółć+<&?>@example.pl", "marketing", "unsubscribe", NOW)
    assert set(token) <= set(BASE64URL + ".")


@given(subjects, actions)
def test_a_token_of_a_retired_key_is_good_while_the_key_is_listed(
    subject: str, action: str
) -> None:
    token = Tokens(OLD).sign(subject, "marketing", action, NOW)
    assert ROTATED.verify(token, action, NOW).subject == subject
    refused(token, action, Tokens(NEW))


def test_the_first_key_signs() -> None:
    assert ROTATED.sign("a@b.pl", "marketing", "unsubscribe", NOW).startswith("k1.")


@given(actions, actions)
def test_a_token_of_one_action_does_nothing_for_another(made: str, used: str) -> None:
    token = ROTATED.sign("a@b.pl", "marketing", made, NOW)
    if made == used:
        ROTATED.verify(token, used, NOW)
    else:
        refused(token, used)


def test_a_token_older_than_allowed_is_refused() -> None:
    token = ROTATED.sign("a@b.pl", "marketing", "erasure", NOW)
    age = timedelta(minutes=30)
    ROTATED.verify(token, "erasure", NOW + age, age)
    with pytest.raises(InvalidToken):
        ROTATED.verify(token, "erasure", NOW + age + timedelta(seconds=1), age)


@given(st.data())
def test_any_flipped_bit_of_payload_or_signature_is_refused(data: st.DataObject) -> None:
    parts = list(unpacked(ROTATED.sign("a@b.pl", "marketing", "unsubscribe", NOW)))
    which = data.draw(st.sampled_from((1, 2)))
    raw = bytearray(decoded(parts[which]))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    parts[which] = encoded(bytes(raw))
    refused(".".join(parts))


@given(st.data())
def test_any_cut_or_added_part_is_refused(data: st.DataObject) -> None:
    token = ROTATED.sign("a@b.pl", "marketing", "unsubscribe", NOW)
    refused(token[: data.draw(st.integers(0, len(token) - 1))])
    refused(token[data.draw(st.integers(1, len(token) - 1)) :])
    refused(token + data.draw(st.text(min_size=1, max_size=5)))


def test_a_signature_holds_for_the_key_it_names_and_no_other() -> None:
    """Else whoever has an old key could pass its tokens off as of the new one."""
    _, payload, signature = unpacked(Tokens(OLD).sign("a@b.pl", "marketing", "unsubscribe", NOW))
    refused(f"k1.{payload}.{signature}")
    same_bytes = Tokens(f"k1:{OLD[3:]}")
    refused(f"k1.{payload}.{signature}", tokens=same_bytes)


def test_another_spelling_of_the_same_bytes_is_refused() -> None:
    """One link is one text: padding, standard base64 and the free bits of the last character."""
    key_id, payload, signature = unpacked(ROTATED.sign("a@b.pl?>?", "m", "unsubscribe", NOW))
    last = BASE64URL.index(signature[-1])
    loose = signature[:-1] + BASE64URL[last ^ 1]
    assert decoded(loose) == decoded(signature)
    for spelling in (f"{signature}=", loose, f"{signature}\n"):
        refused(f"{key_id}.{payload}.{spelling}")
    for spelling in (f"{payload}=", payload.replace("-", "+").replace("_", "/") + "=="):
        refused(f"{key_id}.{spelling}.{signature}")


@given(st.text() | st.text(st.characters(categories=["Cs"]), min_size=1))
def test_any_text_is_refused_and_never_fails_otherwise(text: str) -> None:
    refused(text)
    refused(f"k1.{text}.{text}")


@pytest.mark.parametrize(
    "keys", ["", "k1", "k1:???", "k1:c2hvcnQ=", ":" + NEW, "a.b:" + NEW[3:], f"{NEW},{NEW}"]
)
def test_malformed_keys_are_named_and_not_shown(keys: str) -> None:
    with pytest.raises(ValueError, match="key '"):
        parse_keys(keys)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
