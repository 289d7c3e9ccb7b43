import base64
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from deploy.up.environment import EXAMPLE_CONFIG
from libs.common.database import postgres
from libs.domain.signed_links import Tokens
from services.consent import changes
from services.consent.changes import Withdrawal, WithdrawalRequest
from services.consent.consumers import Consumers
from services.consent.mails import LinkMails
from services.consent.messages import PermitRequest
from services.consent.optin import OptIns
from services.consent.recovery.journal import Journal
from services.consent.rules import Action, Agreement
from services.consent.settings import ConsentSettings
from services.consent.store.sql import run
from services.consent.store.vault import Vault
from services.consent.trail.chain import Entry, Origin
from tests.conftest import NewDatabase
from tests.support.databases import DatabaseUrl
from tests.support.eventually import eventually

_REFUSED = Path(__file__).with_name("refused.yaml").read_text(encoding="utf-8")
REFUSED: dict[str, list[tuple[str, dict[str, Any], str]]] = yaml.safe_load(
    re.sub(r"([x0])\*(\d+)", lambda found: found[1] * int(found[2]), _REFUSED)
)


def key(letter: str) -> str:
    return base64.b64encode(letter.encode() * 32).decode()


class NoDeadLetters:
    """Of a consent without a broker."""

    async def naming(self, _: str) -> list[Any]:
        return []

    async def remove_erased(self) -> int:
        return 0


NO_DEAD_LETTERS: Any = NoDeadLetters()
ENVIRONMENT = {
    "COMPANY_CONFIG": str(EXAMPLE_CONFIG / "company.toml"),
    "FORMS_CONFIG": str(EXAMPLE_CONFIG / "forms.toml"),
    "HTTP_PORT": "0",
    "METRICS_PORT": "0",
    "INTERNAL_API_KEY": "internal-key-of-the-tests",
    "AMQP_URL": "amqp://nobody@127.0.0.1:1/none",
    "TOKEN_KEYS": f"t1:{key('t')}",
    "CONSENT_MASTER_KEYS": f"m1:{key('m')}",
    "CONSENT_HASH_KEY": key("h"),
    "CONSENT_CHECKPOINT_KEYS": f"c1:{key('c')}",
    "PUBLIC_BASE_URL": "https://ostoja.example.com",
    "DOUBLE_OPT_IN": "off",
}
KEPT = {
    "suppressions": 1825, "unconfirmed_erasures": 30, "proofs": 2190, "withdrawals": 1095,
    "origins": 365, "calls": 1825,
}  # fmt: skip
WORDING = "Zgadzam się na wiadomości marketingowe."
COMPANY = Path(__file__).parents[3] / "config.example/company.toml"
PUBLISHED = (
    "tak",
    "Jednak tak.",
    "Inna zgoda.",
    "Yes, write to me.",
    "Zgadzam się",
    "Zgadzam się.",
    "Zgadzam się na wiadomości.",
    "Zgadzam się na wiadomości o ofercie.\nMogę to <zawsze> cofnąć.",
    WORDING,
)


def agreement(
    text: str = WORDING, source: str = "test", *, at: datetime | None = None, **more: Any
) -> Agreement:
    more = {"version": "test"} | more
    return Agreement(text, "pl", source, at or datetime.now(UTC), **more)


def company_file(folder: Path, *more: str) -> Path:
    """Write a company's file that has published these wordings before its present ones."""
    shipped = COMPANY.read_text(encoding="utf-8")
    place = shipped.index("[[wordings]]")
    older = "".join(
        f'[[wordings]]\nversion = "test-{number}"\npurpose = "marketing"\nplace = "form"\n'
        f"text.pl = {json.dumps(text, ensure_ascii=False)}\n\n"
        for number, text in enumerate((*PUBLISHED, *more))
    )
    path = folder / "company.toml"
    path.write_text(shipped[:place] + older + shipped[place:], encoding="utf-8")
    return path


def opt_in(email: str) -> Entry:
    return Entry(Action.OPT_IN, email, Origin("203.0.113.7", "pytest"), session_id="s-1")


def unsubscribe(email: str, reason: str | None = None) -> Entry:
    return Entry(Action.UNSUBSCRIBE, email, Origin("203.0.113.8"), reason)


@pytest.fixture
async def consent_database(database: NewDatabase) -> DatabaseUrl:
    return await database("consent")


@pytest.fixture
async def engine(consent_database: DatabaseUrl) -> AsyncIterator[AsyncEngine]:
    url = consent_database
    async with postgres.connect(url, application_name="tests", pool_size=16) as opened:
        yield opened


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch, consent_database: DatabaseUrl, tmp_path: Path
) -> ConsentSettings:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", consent_database)
    monkeypatch.setenv("CONSENT_RECORDS_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("COMPANY_CONFIG", str(company_file(tmp_path)))
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


def make_consumers(
    engine: AsyncEngine,
    vault: Vault,
    settings: ConsentSettings,
    broker: Any = None,
    dead_letters: Any = NO_DEAD_LETTERS,
    journal: Journal | None = None,
) -> Consumers:
    link_mails = LinkMails(Tokens(ENVIRONMENT["TOKEN_KEYS"]), settings)
    opt_ins = OptIns(vault, link_mails, settings)
    journal = journal or Journal(engine, vault, settings)
    return Consumers(engine, broker, vault, link_mails, settings, opt_ins, journal, dead_letters)


async def rows(engine: AsyncEngine, statement: str, **values: Any) -> list[Any]:
    """Ask, or change, the database past the service."""
    async with engine.begin() as tx:
        found = await tx.execute(text(statement), values)
        return list(found) if found.returns_rows else []


async def scalar(engine: AsyncEngine, statement: str, **values: Any) -> Any:
    return (await rows(engine, statement, **values))[0][0]


async def grant(engine: AsyncEngine, vault: Vault, email: str) -> bool:
    async with engine.begin() as tx:
        return await changes.grant(tx, vault, opt_in(email), agreement())


async def withdraw(tx: AsyncConnection, vault: Vault, entry: Entry) -> Withdrawal:
    return await changes.withdraw(tx, vault, WithdrawalRequest(entry), suppression_days=1)


def asked_for(
    message: UUID, email: str, purpose: str = "marketing", attempt: int = 1
) -> PermitRequest:
    return PermitRequest(message=message, attempt=attempt, address=email, purpose=purpose)


async def give_back(tx: AsyncConnection, message: UUID, attempt: int = 1) -> None:
    await run(tx, "return_permit", message=message, attempt=attempt)


async def restrictions(
    tx: AsyncConnection, hashed: bytes, purpose: str = "marketing", subject: UUID | None = None
) -> Any:
    of = {"subject": subject or uuid4(), "hash": hashed, "purpose": purpose}
    return (await run(tx, "restrictions", **of)).one()


async def until_one_waits(cursor: Any, for_query: str = "") -> None:
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

    async def none() -> bool:
        cursor.execute(
            "SELECT pg_stat_clear_snapshot();"
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return bool(cursor.fetchone() == (0,))

    await eventually(none)
