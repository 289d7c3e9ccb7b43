import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.domain import email_address

VECTORS = json.loads(Path("tests/contracts/addresses.json").read_text(encoding="utf-8"))

anything = st.text(st.characters())  # surrogates included
# What is often an address: else nearly all that is tried is refused at the first look.
letters = st.characters(categories=["Ll", "Lu", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd"])
likely = st.builds(
    "{}@{}.{}".format,
    st.text(letters | st.sampled_from(".+-_\"\\ '＠"), min_size=1, max_size=20),
    st.text(letters | st.sampled_from(".-。．"), min_size=1, max_size=20),
    st.text(letters, min_size=2, max_size=6),
)
given_addresses = likely | anything | st.builds("{}@{}".format, anything, anything)


def normal_or_none(address: str) -> str | None:
    try:
        return email_address.normalise(address)
    except email_address.MalformedEmail:
        return None


@pytest.mark.parametrize("vector", VECTORS["same"], ids=lambda vector: ascii(vector["given"]))
def test_spellings_of_an_address_normalise_to_one(vector: dict[str, str]) -> None:
    assert email_address.normalise(vector["given"]) == vector["normal"]
    assert email_address.normalise(vector["normal"]) == vector["normal"]


@pytest.mark.parametrize("pair", VECTORS["different"], ids=ascii)
def test_a_different_address_stays_different(pair: list[str]) -> None:
    assert email_address.normalise(pair[0]) != email_address.normalise(pair[1])


@pytest.mark.parametrize("address", VECTORS["malformed"], ids=ascii)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(email_address.MalformedEmail, match="not a valid e-mail address"):
        email_address.normalise(address)


@pytest.mark.parametrize("domain", [f"{'a.' * 146}com", f"{'ż' * 1_000_000}.pl"], ids=len)
def test_an_address_beyond_the_bounds_is_refused_before_it_is_encoded(domain: str) -> None:
    with pytest.raises(email_address.MalformedEmail):
        email_address.normalise(f"anna@{domain}")


@given(given_addresses)
def test_any_input_is_refused_or_normalises_idempotently(address: str) -> None:
    normal = normal_or_none(address)
    if normal is not None:
        assert email_address.normalise(normal) == normal
        assert email_address.normalise(f" \t{normal}\n") == normal


@given(given_addresses)
def test_a_normal_address_is_within_the_bounds_of_smtp_and_ascii_in_its_domain(
    address: str,
) -> None:
    normal = normal_or_none(address)
    if normal is not None:
        local, _, domain = normal.rpartition("@")
        assert 1 <= len(local.encode()) <= email_address.MAX_LOCAL_OCTETS
        assert len(normal.encode()) <= email_address.MAX_OCTETS
        assert domain.isascii()
        assert domain == domain.lower()
        labels = domain.split(".")
        assert len(labels) >= 2
        assert all(1 <= len(label) <= email_address.MAX_LABEL_OCTETS for label in labels)


@given(given_addresses)
def test_composed_and_decomposed_spellings_are_one_address(address: str) -> None:
    normal = normal_or_none(unicodedata.normalize("NFC", address))
    assert normal_or_none(unicodedata.normalize("NFD", address)) == normal
    assert normal_or_none(address) == normal


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20))
def test_ascii_case_makes_no_other_address(local: str) -> None:
    assert email_address.normalise(f"{local.upper()}@EXAMPLE.com") == email_address.normalise(
        f"{local.lower()}@example.com"
    )
