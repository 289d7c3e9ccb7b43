import base64
from uuid import uuid4

import pytest
from cryptography.exceptions import InvalidTag

from services.consent.vault import Vault

OLD = "k0:" + base64.b64encode(b"o" * 32).decode()
NEW = "k1:" + base64.b64encode(b"n" * 32).decode()
HASH = base64.b64encode(b"h" * 32).decode()


def test_a_cell_is_read_back_with_the_wrapped_key_alone() -> None:
    person, vault = uuid4(), Vault(NEW, HASH)
    key, wrapped = vault.new_key(person)
    cell = key.encrypt("email", "zażółć@example.com")
    assert cell is not None
    assert "example" not in cell.decode("latin-1")
    assert vault.unwrap(person, wrapped).decrypt("email", cell) == "zażółć@example.com"


def test_the_same_text_is_never_the_same_cell_twice() -> None:
    key, _ = Vault(NEW, HASH).new_key(uuid4())
    assert key.encrypt("email", "x") != key.encrypt("email", "x")


def test_nothing_stays_nothing() -> None:
    key, _ = Vault(NEW, HASH).new_key(uuid4())
    assert key.encrypt("reason", None) is None
    assert key.decrypt("reason", None) is None


def test_a_cell_moved_to_another_column_or_person_is_refused() -> None:
    person, vault = uuid4(), Vault(NEW, HASH)
    key, wrapped = vault.new_key(person)
    cell = key.encrypt("email", "x")
    with pytest.raises(InvalidTag):
        key.decrypt("reason", cell)
    with pytest.raises(InvalidTag):
        vault.unwrap(uuid4(), wrapped)


def test_a_key_wrapped_by_an_older_master_key_opens_after_the_rotation() -> None:
    person = uuid4()
    key, wrapped = Vault(OLD, HASH).new_key(person)
    cell = key.encrypt("email", "x")
    rotated = Vault(f"{NEW},{OLD}", HASH)
    assert rotated.unwrap(person, wrapped).decrypt("email", cell) == "x"
    assert rotated.new_key(person)[1].master_key_id == "k1"


def test_without_its_master_key_a_person_is_gone() -> None:
    person = uuid4()
    _, wrapped = Vault(OLD, HASH).new_key(person)
    with pytest.raises(KeyError):
        Vault(NEW, HASH).unwrap(person, wrapped)


def test_the_two_hashes_of_an_address_have_nothing_in_common() -> None:
    vault = Vault(NEW, HASH)
    assert vault.address_hash("a@b.pl") == vault.address_hash("a@b.pl")
    assert vault.address_hash("a@b.pl") != vault.suppression_hash("a@b.pl")
    assert vault.address_hash("a@b.pl") != Vault(NEW, NEW[3:]).address_hash("a@b.pl")


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
