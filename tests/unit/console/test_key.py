from datetime import UTC, datetime, timedelta

import pytest

from services.console.rules import ID, LONGEST_LIFE, expiry_fault, new_key_id, new_secret

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def test_a_secret_names_its_key_and_holds_256_random_bits() -> None:
    key_id = new_key_id()
    assert ID.fullmatch(key_id)
    first, second = new_secret(key_id), new_secret(key_id)
    prefix, named, random = first.text.split("_", 2)
    assert (prefix, named, len(random)) == ("osk", key_id, 43)
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (NOW, "past"),
        (NOW + LONGEST_LIFE, None),
        (NOW + LONGEST_LIFE + timedelta(seconds=1), "400 days"),
    ],
)
def test_a_key_ends_within_400_days(end: datetime, said: str | None) -> None:
    fault = expiry_fault(end, NOW)
    assert fault is None if said is None else fault is not None and said in fault
