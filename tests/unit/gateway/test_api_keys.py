"""What a gateway makes of the keys that the console hands out."""

from typing import Any, cast

import pytest

from libs.domain.scopes import Scope
from services.gateway.door.keys import ApiKeys, parse_ids
from services.gateway.proxy.key_sync import KeySync
from tests.support.console import api_key

ID, OTHER = "AAAAAAAAAA", "BBBBBBBBBB"
NOW = 1_700_000_000.0


def found(handed: Any) -> Any:
    keys = ApiKeys()
    keys.adopt([handed])
    return keys.find("text", NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": ["600 per fortnight"]},
        {"networks": ["10.0.0.0/33"]},
        {"expires_at": "soon"},
        {"digests": [{"sha256": "00", "until": None}]},
        {"id": "osk"},
        {"scopes": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_key_that_cannot_be_read_opens_nothing_and_the_others_do(changes: dict[str, Any]) -> None:
    keys = ApiKeys()
    keys.adopt([api_key(ID, "text") | changes, None, api_key(OTHER, "other")])
    assert keys.find("text", NOW) is None
    assert keys.find("other", NOW) is not None


def test_what_a_newer_console_says_more_is_no_fault() -> None:
    key = found(api_key(ID, "text", "alerts:read", "coffee:make", colour="red"))
    assert key.scopes == {Scope.ALERTS_READ}


def test_of_limits_of_one_length_the_smaller_counts() -> None:
    key = found(api_key(ID, "text", limits=["60 per minute", "10 per minute", "500 per day"]))
    assert [str(window) for window in key.windows] == ["10 per minute", "500 per day"]


def test_uses_are_counted_until_the_console_has_them() -> None:
    keys = ApiKeys()
    keys.adopt([api_key(ID, "text")])
    key = keys.find("text", NOW)
    assert key is not None
    keys.count(key, NOW)
    used = keys.take_used()
    keys.count(key, NOW + 5)
    keys.put_back(used)
    assert keys.take_used() == {ID: (NOW + 5, 2)}
    assert keys.take_used() == {}


@pytest.mark.parametrize("text", ["osk_AAAAAAAAAA", "AAAA", "aaaaaaaaaa"])
def test_what_is_no_id_is_refused_by_name(text: str) -> None:
    assert parse_ids(f"{ID}, {OTHER},") == {ID, OTHER}
    with pytest.raises(ValueError, match=text):
        parse_ids(f"{ID},{text}")


def test_keys_are_degraded_after_a_minute_without_word(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: at)
    sync = KeySync(cast("Any", None), ApiKeys(), cast("Any", None), "host:1/0")
    at += 59
    assert sync.state() == {"status": "healthy"}
    at += 1
    assert sync.state()["status"] == "degraded"
