"""The commands rehash and rewrap: after a rotation all are found, and suppressed ones stay so."""

import pytest
from sqlalchemy import text

from services.consent import app, commands, erasure_orders
from services.consent.settings import ConsentSettings
from services.consent.store import data_subjects, hash_keys
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import (
    ADMIN,
    ANNA,
    ENVIRONMENT,
    Consent,
    key,
)

pytestmark = pytest.mark.promise("P5")


OLD = ENVIRONMENT["CONSENT_HASH_KEY"]
NEW = f"{key('n')},{OLD}"
JAN, EWA = "jan@example.com", "ewa@example.com"


def vault_of(hash_keys: str) -> Vault:
    return Vault(ENVIRONMENT["CONSENT_MASTER_KEYS"], hash_keys)


async def rehash(consent: Consent, monkeypatch: pytest.MonkeyPatch, keys: str) -> int:
    await consent.engine.dispose()  # the process stops
    monkeypatch.setenv("CONSENT_HASH_KEY", keys)
    monkeypatch.setenv("DATABASE_URL", consent.settings.database_url.get_secret_value())
    return await commands.rehash(ConsentSettings())


async def test_suppressed_and_erased_subjects_stay_suppressed_after_a_rehash(
    consent: Consent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = vault_of(OLD), vault_of(NEW)
    assert await consent.grant(ANNA)
    for email in (JAN, EWA):
        await consent.post("/api/unsubscribe", {"email": email})
    await consent.erase(EWA)
    async with consent.engine.begin() as tx:
        assert await hash_keys.applied(tx, old.hash_keys) == old.hash_keys

    assert await rehash(consent, monkeypatch, NEW) == 0
    assert await rehash(consent, monkeypatch, NEW) == 0  # again: nothing is left to do
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said][-1] == "0"
    assert int(said[-2].split()[1]) > 0

    async with consent.engine.begin() as tx:
        assert await hash_keys.applied(tx, new.hash_keys) == new.hash_keys
        anna = await data_subjects.find(tx, new, ANNA)
        assert anna is not None
        assert await data_subjects.find(tx, old, ANNA) is None
        assert await run(tx, "find_erasure", hash=new.suppression_hash(EWA))
    async with consent.serving(vault=new) as again:
        for email, suppressed in ((ANNA, False), (JAN, True), (EWA, True)):
            assert (await again.suppression(email)).suppressed is suppressed
        exported = await again.get(f"/api/consent/export/{JAN}", ADMIN)  # by no forgotten hash
        assert exported["services"]["consent"]["consents"] == {"marketing": "withdrawn"}


async def test_consent_does_not_start_with_other_hash_keys(
    consent: Consent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app._check_hash_keys(consent.engine, vault_of(OLD))
    for keys in (NEW, key("n"), f"{OLD},{key('n')}"):
        with pytest.raises(SystemExit, match="CONSENT_HASH_KEY"):
            await app._check_hash_keys(consent.engine, vault_of(keys))
    for wrong in (key("n"), f"{OLD},{key('n')}"):
        assert await rehash(consent, monkeypatch, wrong) == 1
    assert await rehash(consent, monkeypatch, NEW) == 0
    await app._check_hash_keys(consent.engine, vault_of(NEW))
    with pytest.raises(SystemExit, match="CONSENT_HASH_KEY"):  # a process that still has the old
        await app._check_hash_keys(consent.engine, vault_of(OLD))


async def test_rehash_refuses_to_run_beside_a_process_of_consent(
    consent: Consent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with consent.engine.connect() as running:
        await running.execute(text("SELECT 1"))
        monkeypatch.setenv("CONSENT_HASH_KEY", NEW)
        monkeypatch.setenv("DATABASE_URL", consent.settings.database_url.get_secret_value())
        assert await commands.rehash(ConsentSettings()) == 1


async def test_a_rewrap_makes_the_old_master_key_unnecessary(
    consent: Consent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "REWRAP_BATCH", 2)
    for number in range(5):
        await consent.grant(f"person{number}@example.com")
    await consent.erase(ANNA)

    both = f"m2:{key('n')},{ENVIRONMENT['CONSENT_MASTER_KEYS']}"
    monkeypatch.setenv("CONSENT_MASTER_KEYS", both)
    newer = ConsentSettings()
    assert await commands.rewrap(newer) == 0
    assert await commands.rewrap(newer) == 0  # again: nothing is left to do
    said = [line for line in capsys.readouterr().out.splitlines() if "rewrapped" in line]
    assert [line.split()[1] for line in said] == ["5", "0"]

    alone = Vault(f"m2:{key('n')}", ENVIRONMENT["CONSENT_HASH_KEY"])
    async with consent.engine.begin() as tx:
        for number in range(5):
            subject = await data_subjects.find(tx, alone, f"person{number}@example.com")
            assert subject is not None
            subject.key(alone)
    await erasure_orders.follow_up(consent.engine, alone, 0)
    assert len(await consent.orders()) == 2
    assert subject is not None
    with pytest.raises(KeyError):
        subject.key(consent.vault)  # which knows the old one only
