import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import db
from libs.common.tokens import Tokens
from services.consent import changes
from services.consent.changes import Asked, Withdrawal, Wording
from services.consent.consent import Action
from services.consent.settings import ConsentSettings
from services.consent.trail import Entry, Origin
from services.consent.vault import Vault
from tests.conftest import NewDatabase
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually


def key(letter: str) -> str:
    return base64.b64encode(letter.encode() * 32).decode()


ENVIRONMENT = {
    "HTTP_PORT": "0",
    "METRICS_PORT": "0",
    "INTERNAL_API_KEY": "internal-key-of-the-tests",
    "AMQP_URL": "amqp://nobody@127.0.0.1:1/none",
    "TOKEN_KEYS": f"t1:{key('t')}",
    "CONSENT_MASTER_KEYS": f"m1:{key('m')}",
    "CONSENT_HASH_KEY": key("h"),
    "CONSENT_CHECKPOINT_KEYS": f"c1:{key('c')}",
    "PUBLIC_BASE_URL": "https://ostoja.example.com",
}
WORDING = Wording("Zgadzam się na wiadomości marketingowe.", "pl", "test")


def opt_in(email: str) -> Entry:
    return Entry(Action.OPT_IN, email, Origin("203.0.113.7", "pytest"), session_id="s-1")


def unsubscribe(email: str, reason: str | None = None) -> Entry:
    return Entry(Action.UNSUBSCRIBE, email, Origin("203.0.113.8"), reason)


@pytest.fixture
async def consent_database(database: NewDatabase) -> DatabaseUrl:
    return await database("consent")


BOTH_DRIVERS = pytest.mark.parametrize("engine", ["aiopg", "asyncpg"], indirect=True)


@pytest.fixture
async def engine(
    consent_database: DatabaseUrl, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncEngine]:
    url = consent_database.replace("+aiopg", f"+{getattr(request, 'param', 'aiopg')}")
    async with db.connect(url, application_name="tests", pool_size=16) as opened:
        yield opened


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch, consent_database: DatabaseUrl, tmp_path: Path
) -> ConsentSettings:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", consent_database)
    monkeypatch.setenv("CONSENT_RECORDS_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("WITHDRAWAL_WAIT_SECONDS", "0.5")
    return ConsentSettings()


@pytest.fixture
def vault() -> Vault:
    return Vault(ENVIRONMENT["CONSENT_MASTER_KEYS"], ENVIRONMENT["CONSENT_HASH_KEY"])


@pytest.fixture
def link() -> "Link":
    return Link()


class Link:
    """Signs what a mail's link carries."""

    def __call__(self, email: str, action: str = "unsubscribe") -> str:
        tokens = Tokens(ENVIRONMENT["TOKEN_KEYS"])
        return tokens.sign(email, "marketing", action, datetime.now(UTC))

    def erasure(self, email: str, erasure_id: UUID, age: timedelta = timedelta()) -> str:
        tokens = Tokens(ENVIRONMENT["TOKEN_KEYS"])
        return tokens.sign(email, str(erasure_id), "erasure", datetime.now(UTC) - age)


async def grant(engine: AsyncEngine, vault: Vault, email: str) -> bool:
    async with engine.begin() as tx:
        return await changes.grant(tx, vault, opt_in(email), WORDING)


async def withdraw(tx: AsyncConnection, vault: Vault, entry: Entry) -> Withdrawal:
    (withdrawal,) = await changes.withdraw(tx, vault, [Asked(entry)], suppression_days=1)
    return withdrawal


async def somebody_waits(cursor: Any, for_query: str = "") -> None:
    """Wait until another session of this database waits for a lock."""

    async def waiting() -> bool:
        cursor.execute(
            "SELECT pg_stat_clear_snapshot();"  # a transaction sees the same activity else
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock' AND query LIKE %s",
            (f"{for_query}%",),
        )
        return bool(cursor.fetchone() != (0,))

    await eventually(waiting)


async def alone(cursor: Any) -> None:
    """Wait until the database has no other session."""

    async def nobody() -> bool:
        cursor.execute(
            "SELECT pg_stat_clear_snapshot();"
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return bool(cursor.fetchone() == (0,))

    await eventually(nobody)
