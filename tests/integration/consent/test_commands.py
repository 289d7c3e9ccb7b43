"""The commands rehash and rewrap: after a rotation all are found, and suppressed ones stay so."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.consent import app, commands, erasure_orders
from services.consent.settings import ConsentSettings
from services.consent.store import data_subjects, hash_keys
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from tests.integration.consent.conftest import ENVIRONMENT, grant, key, restrictions
from tests.integration.consent.test_erasure import orders
from tests.integration.consent.test_erasure_orders import erase
from tests.integration.consent.test_http import ADMIN, ANNA, Client, client, post, serving
from tests.support.databases import DatabaseUrl

pytestmark = pytest.mark.promise("P5")

__all__ = ["client"]  # a fixture

OLD = ENVIRONMENT["CONSENT_HASH_KEY"]
NEW = f"{key('n')},{OLD}"
JAN, EWA = "jan@example.com", "ewa@example.com"


def vault_of(hash_keys: str) -> Vault:
    return Vault(ENVIRONMENT["CONSENT_MASTER_KEYS"], hash_keys)


async def suppressed(engine: AsyncEngine, vault: Vault, email: str) -> bool:
    async with engine.begin() as tx:
        subject = await data_subjects.get_or_create(tx, vault, email, data_subjects.Lock.CHANGE)
        hashed = vault.suppression_hash(email)
        return bool((await restrictions(tx, hashed, subject=subject.id)).suppressed)


async def rehash(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, settings: ConsentSettings, keys: str
) -> int:
    await engine.dispose()  # the process stops
    monkeypatch.setenv("CONSENT_HASH_KEY", keys)
    monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
    return await commands.rehash(ConsentSettings())


async def test_suppressed_and_erased_subjects_stay_suppressed_after_a_rehash(
    client: Client,
    engine: AsyncEngine,
    settings: ConsentSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = vault_of(OLD), vault_of(NEW)
    assert await grant(engine, old, ANNA)
    for email in (JAN, EWA):
        await post(client, "/api/unsubscribe", {"email": email})
    erased = await client.post("/api/consent/erase", json={"email": EWA}, headers=ADMIN)
    assert erased.status == 200
    async with engine.begin() as tx:
        assert await hash_keys.applied(tx, old.hash_keys) == old.hash_keys

    assert await rehash(engine, monkeypatch, settings, NEW) == 0
    assert await rehash(engine, monkeypatch, settings, NEW) == 0  # again: nothing is left to do
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said][-1] == "0"
    assert int(said[-2].split()[1]) > 0

    async with engine.begin() as tx:
        assert await hash_keys.applied(tx, new.hash_keys) == new.hash_keys
        anna = await data_subjects.find(tx, new, ANNA)
        assert anna is not None
        assert await data_subjects.find(tx, old, ANNA) is None
        assert await run(tx, "find_erasure", hash=new.suppression_hash(EWA))
    assert [await suppressed(engine, new, email) for email in (ANNA, JAN, EWA)] == [
        False,
        True,
        True,
    ]
    async with serving(engine, new, settings) as again:  # not one by a forgotten hash
        exported = await again.get(f"/api/consent/export/{JAN}", headers=ADMIN)
        assert (await exported.json())["services"]["consent"]["consents"] == {
            "marketing": "withdrawn"
        }


async def test_consent_does_not_start_with_other_hash_keys(
    engine: AsyncEngine,
    settings: ConsentSettings,
    monkeypatch: pytest.MonkeyPatch,
    consent_database: DatabaseUrl,
) -> None:
    await app._check_hash_keys(engine, vault_of(OLD))
    for keys in (NEW, key("n"), f"{OLD},{key('n')}"):
        with pytest.raises(SystemExit, match="CONSENT_HASH_KEY"):
            await app._check_hash_keys(engine, vault_of(keys))
    for wrong in (key("n"), f"{OLD},{key('n')}"):
        assert await rehash(engine, monkeypatch, settings, wrong) == 1
    assert await rehash(engine, monkeypatch, settings, NEW) == 0
    await app._check_hash_keys(engine, vault_of(NEW))
    with pytest.raises(SystemExit, match="CONSENT_HASH_KEY"):  # a process that still has the old
        await app._check_hash_keys(engine, vault_of(OLD))


async def test_rehash_refuses_to_run_beside_a_process_of_consent(
    engine: AsyncEngine, settings: ConsentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine.connect() as running:
        await running.execute(text("SELECT 1"))
        monkeypatch.setenv("CONSENT_HASH_KEY", NEW)
        monkeypatch.setenv("DATABASE_URL", settings.database_url.get_secret_value())
        assert await commands.rehash(ConsentSettings()) == 1


async def test_a_rewrap_makes_the_old_master_key_unnecessary(
    client: Client, engine: AsyncEngine, vault: Vault, settings: ConsentSettings,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(commands, "REWRAP_BATCH", 2)
    for number in range(5):
        await grant(engine, vault, f"person{number}@example.com")
    await erase(client, ANNA)

    both = f"m2:{key('n')},{ENVIRONMENT['CONSENT_MASTER_KEYS']}"
    monkeypatch.setenv("CONSENT_MASTER_KEYS", both)
    newer = ConsentSettings()
    assert await commands.rewrap(newer) == 0
    assert await commands.rewrap(newer) == 0  # again: nothing is left to do
    said = [line for line in capsys.readouterr().out.splitlines() if "rewrapped" in line]
    assert [line.split()[1] for line in said] == ["5", "0"]

    alone = Vault(f"m2:{key('n')}", ENVIRONMENT["CONSENT_HASH_KEY"])
    async with engine.begin() as tx:
        for number in range(5):
            subject = await data_subjects.find(tx, alone, f"person{number}@example.com")
            assert subject is not None
            subject.key(alone)
    await erasure_orders.follow_up(engine, alone, 0)
    assert len(await orders(engine)) == 2
    assert subject is not None
    with pytest.raises(KeyError):
        subject.key(vault)  # which knows the old one only
