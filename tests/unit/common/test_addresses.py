import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.addresses import MalformedAddress, normalise

VECTORS = json.loads(Path("tests/contracts/addresses.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["same"], ids=lambda vector: vector["given"])
def test_another_spelling_of_an_address_is_looked_up_the_same(vector: dict[str, str]) -> None:
    assert normalise(vector["given"]) == vector["normal"]
    assert normalise(vector["normal"]) == vector["normal"]


@pytest.mark.parametrize("pair", VECTORS["different"])
def test_a_different_address_stays_different(pair: list[str]) -> None:
    assert normalise(pair[0]) != normalise(pair[1])


@pytest.mark.parametrize("address", VECTORS["malformed"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(MalformedAddress, match="not a valid e-mail address"):
        normalise(address)


def test_an_address_of_300_characters_is_refused() -> None:
    with pytest.raises(MalformedAddress):
        normalise(f"anna@{'a.' * 146}com")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_refused_or_normalised_once_and_for_all(local: str, domain: str) -> None:
    try:
        normal = normalise(f"{local}@{domain}.pl")
    except MalformedAddress:
        return
    assert normalise(normal) == normal
    assert normalise(f"  {local}@{domain}.PL ") == normal
    assert "\0" not in normal
