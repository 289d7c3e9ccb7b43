import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography.exceptions import InvalidTag

from services.consent.rules import (
    Agreement,
    Consequence,
    Permit,
    PermitDecision,
    consequence,
    preferred_language,
)
from services.consent.store.vault import Vault
from services.consent.trail.chain import Position
from services.consent.trail.checkpoints import Signer

OPEN, RETURNED = Permit(0, returned=False), Permit(0, returned=True)
GRANTED, DENIED, CLOSED = PermitDecision


NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
AGREED = Agreement("Tak.", "pl", "test", NOON, "form", version="v1")


def _follows(agreement: Agreement = AGREED, **more: Any) -> Consequence:
    nothing = {"confirmed": False, "double_opt_in": False, "suppressed": False}
    return consequence(agreement, **{**nothing, "withdrawn_at": None, **more})


def test_an_import_from_the_future_is_younger_than_no_withdrawal() -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    imported = replace(AGREED, place="import", version=None, given_at=later)
    assert _follows(imported) is Consequence.CONFIRM
    assert _follows(imported, withdrawn_at=NOON) is Consequence.WITHDRAWN_SINCE
    # By the clock of a gateway that is ahead.
    assert _follows(replace(AGREED, given_at=later), withdrawn_at=NOON) is Consequence.COUNTS


def test_double_opt_in_exempts_only_an_import_with_evidence() -> None:
    imported = replace(AGREED, place="import")
    assert _follows(double_opt_in=True) is Consequence.CONFIRM
    assert _follows(imported, double_opt_in=True) is Consequence.CONFIRM
    proven = replace(imported, proven=True)
    assert _follows(proven, double_opt_in=True) is Consequence.COUNTS


def test_a_suppressed_address_must_confirm_and_its_import_is_only_recorded() -> None:
    assert _follows(suppressed=True) is Consequence.CONFIRM
    imported = replace(AGREED, place="import", proven=True)
    assert _follows(imported, suppressed=True) is Consequence.NOTHING


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "pl"), ("pl", "pl"), ("en", "en"), ("en-GB,en;q=0.9,pl;q=0.8", "en"),
        ("pl-PL,pl;q=0.9,en;q=0.8", "pl"), ("de-DE,de;q=0.9,en;q=0.8", "en"), ("de", "pl"),
        ("de,en;q=0.5,pl;q=0.4", "en"), ("en, pl", "en"), ("pl, en", "pl"),
        ("en; q=0.2, pl; q=0.1", "en"), ("en ; q=0.2, pl ; q=0.9", "pl"), ("en;q=0", "pl"),
        ("pl;q=0.5, en;q=nan", "pl"), ("en;q=nonsense", "pl"), ("*", "pl"), ("EN-us", "en"),
        ("EN", "en"), ("english", "pl"), (";q=1,,", "pl"),
    ],
)  # fmt: skip
def test_the_page_uses_the_browser_s_preferred_language(accepted: str, language: str) -> None:
    assert preferred_language(accepted) == language


OLD = "k0:" + base64.b64encode(b"o" * 32).decode()
NEW = "k1:" + base64.b64encode(b"n" * 32).decode()
HASH = base64.b64encode(b"h" * 32).decode()


def test_a_cell_is_decrypted_with_the_wrapped_key_alone() -> None:
    subject_id, vault = uuid4(), Vault(NEW, HASH)
    key, wrapped = vault.new_key(subject_id)
    cell = key.encrypt("email", "zażółć@example.com")
    assert cell is not None
    assert "example" not in cell.decode("latin-1")
    assert vault.unwrap(subject_id, wrapped).decrypt("email", cell) == "zażółć@example.com"
    assert key.encrypt("email", "zażółć@example.com") != cell
    assert key.decrypt("reason", key.encrypt("reason", None)) is None


def test_a_cell_moved_to_another_column_or_subject_is_refused() -> None:
    subject_id, vault = uuid4(), Vault(NEW, HASH)
    key, wrapped = vault.new_key(subject_id)
    cell = key.encrypt("email", "x")
    with pytest.raises(InvalidTag):
        key.decrypt("reason", cell)
    with pytest.raises(InvalidTag):
        vault.unwrap(uuid4(), wrapped)


def test_a_key_wrapped_with_an_older_master_key_opens_after_the_rotation() -> None:
    subject_id = uuid4()
    key, wrapped = Vault(OLD, HASH).new_key(subject_id)
    cell = key.encrypt("email", "x")
    rotated = Vault(f"{NEW},{OLD}", HASH)
    assert rotated.unwrap(subject_id, wrapped).decrypt("email", cell) == "x"
    assert rotated.new_key(subject_id)[1].master_key_id == "k1"


def test_a_subject_s_key_cannot_be_opened_without_its_master_key() -> None:
    subject_id = uuid4()
    _, wrapped = Vault(OLD, HASH).new_key(subject_id)
    with pytest.raises(KeyError):
        Vault(NEW, HASH).unwrap(subject_id, wrapped)


@pytest.mark.parametrize(
    ("master", "hash_key", "named"),
    [
        ("k1:" + base64.b64encode(b"x" * 33).decode(), HASH, "k1"),
        ("k1:short", HASH, "k1"),
        (NEW, "not base64!", "hash key"),
        (NEW, base64.b64encode(b"short").decode(), "hash key"),
    ],
)
def test_a_malformed_key_is_named_without_its_bytes(master: str, hash_key: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        Vault(master, hash_key)
    assert master.partition(":")[2] not in str(caught.value)


def test_a_checkpoint_signed_by_an_older_key_is_ours_after_the_rotation() -> None:
    def seed(letter: str) -> str:
        return base64.b64encode(letter.encode() * 32).decode()

    before = Signer(f"c1:{seed('a')}")
    signed = before.sign(Position(7, b"h" * 32), datetime(2026, 11, 26, tzinfo=UTC))
    rotated = Signer(f"c2:{seed('b')},c1:{seed('a')}")
    assert rotated.is_ours(signed)
    assert rotated.sign(Position(8, b"h" * 32), datetime(2026, 11, 26, tzinfo=UTC)).key == "c2"
    assert not Signer(f"c2:{seed('b')}").is_ours(signed)
