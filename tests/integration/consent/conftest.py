"""Consent on real tables: its routes as the gateway calls them, and what its queues bring."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from deploy.up.environment import EXAMPLE_CONFIG
from libs.common import health
from libs.common.database import postgres
from libs.common.health import HealthRoute
from libs.common.http import application
from libs.common.messaging.broker import Message
from libs.common.messaging.consumer import Disposition
from libs.common.messaging.rpc import NoReply
from libs.common.process.settings import Settings
from libs.domain.signed_links import Tokens
from services.consent import changes, permits
from services.consent.changes import Withdrawal, WithdrawalRequest
from services.consent.consumers import Consumers
from services.consent.http.admin import AdminRoutes
from services.consent.http.pages.routes import PageRoutes
from services.consent.http.public import PublicRoutes
from services.consent.mails import LinkMails
from services.consent.messages import PermitRequest
from services.consent.optin import OptIns
from services.consent.recovery.journal import Journal
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.rules import (
    ALL,
    Action,
    Agreement,
    PermitAnswer,
    PermitDecision,
    WithdrawalResult,
)
from services.consent.settings import ConsentSettings
from services.consent.store import consents, upkeep
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
    """Those of a consent without a broker."""

    async def naming(self, _: str) -> list[Any]:
        return []

    async def remove_erased(self) -> int:
        return 0


NO_DEAD_LETTERS: Any = NoDeadLetters()


NO_BROKER: Any = SimpleNamespace(connected=False)


class NoAnswers:
    async def ask(self, *_: Any, **__: Any) -> Any:
        raise NoReply


ANNA = "anna@example.com"
ADMIN = {"X-Caller": "admin"}
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
def requester() -> Any:
    """The other services, as consent asks them; here none answers."""
    return NoAnswers()


@pytest.fixture
async def consent(
    consent_database: DatabaseUrl, engine: AsyncEngine, settings: ConsentSettings, requester: Any
) -> AsyncIterator["Consent"]:
    vault = Vault(ENVIRONMENT["CONSENT_MASTER_KEYS"], ENVIRONMENT["CONSENT_HASH_KEY"])
    async with Consent(consent_database, engine, vault, settings, requester).serving() as served:
        yield served


@pytest.fixture
async def trail_of_eight(consent: "Consent") -> None:
    for number in range(8):
        assert await consent.grant(f"person{number}@example.com")


@dataclass
class Consent:
    """A process of consent that a test calls, and its tables, which the test sees past it."""

    database: DatabaseUrl
    engine: AsyncEngine
    vault: Vault
    settings: ConsentSettings
    requester: Any
    client: TestClient[web.Request, web.Application] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.stopping = asyncio.Event()
        self.tokens = Tokens(ENVIRONMENT["TOKEN_KEYS"])
        self.link_mails = LinkMails(self.tokens, self.settings)
        self.opt_ins = OptIns(self.vault, self.link_mails, self.settings)
        self.journal = Journal(self.engine, self.vault, self.settings)
        self.consumers = self.consuming()

    def consuming(self, broker: Any = None, dead_letters: Any = NO_DEAD_LETTERS) -> Consumers:
        return Consumers(
            self.engine, broker, self.vault, self.link_mails, self.settings, self.opt_ins,
            self.journal, dead_letters,
        )  # fmt: skip

    def with_settings(self, **changed: Any) -> "Consent":
        return replace(self, settings=self.settings.model_copy(update=changed))

    @asynccontextmanager
    async def serving(self, **other: Any) -> AsyncIterator["Consent"]:
        """Run another process on these tables, with other settings, keys or connections."""
        made = replace(self, **other)
        app = application.create_app(internal_key=ENVIRONMENT["INTERNAL_API_KEY"])
        app.middlewares.append(application.unavailable_when(postgres.is_transient))
        engine, vault, broker = made.engine, made.vault, NO_BROKER
        withdrawals = Withdrawals(engine, vault, made.settings, made.stopping, made.journal)
        by_link = made.tokens, made.link_mails
        PublicRoutes(engine, vault, *by_link, withdrawals, made.opt_ins).add_to(app)
        PageRoutes(engine, vault, made.tokens, made.settings, withdrawals, made.opt_ins).add_to(app)
        AdminRoutes(
            engine, made.requester, vault, made.settings, withdrawals, NO_DEAD_LETTERS
        ).add_to(app)
        look = partial(health.with_outbox, engine, broker)
        HealthRoute(look, "consent", Settings(), broker, Path()).add_to(app)
        headers = {
            "X-Internal-Key": ENVIRONMENT["INTERNAL_API_KEY"],
            "X-Caller": "public",
            "X-Client-Address": "203.0.113.9",
            "X-Client-Address-From": "x-forwarded-for",
            "User-Agent": "Firefox",
        }
        async with TestClient(TestServer(app), headers=headers) as made.client:
            yield made

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        async with self.client.post(path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        async with self.client.get(path, headers=headers or {}) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def seen(self, method: str, url: str, **options: Any) -> tuple[int, str]:
        """Return the status and the text of a page."""
        async with self.client.request(method, url, **options) as answer:
            return answer.status, await answer.text()

    async def entries(self, email: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(f"/api/consent/audit/{email}", ADMIN))[
            "entries"
        ]
        return found

    async def erase(self, email: str = ANNA) -> None:
        status, body = await self.post("/api/consent/erase", {"email": email}, **ADMIN)
        assert (status, body["erasure"]["status"]) == (200, "in_progress")

    async def erasure(self, email: str = ANNA) -> Any:
        return (await self.get(f"/api/consent/audit/{email}", ADMIN))["erasure"]

    async def agreed(self, email: str = ANNA) -> bool:
        status = await self.get(f"/api/unsubscribe/status/{email}", ADMIN)
        return bool(status["consents"]["marketing"])

    async def takes(self, kind: str, body: Mapping[str, Any]) -> Disposition:
        """Let a command come by the queue."""
        return await self.consumers.commands(Message(str(uuid4()), kind, {**body}))

    async def later(self, hours: float) -> None:
        """Let time pass for the count of mails."""
        await self.rows(
            "UPDATE link_mail SET first_at = first_at - make_interval(secs => :s),"
            " last_at = last_at - make_interval(secs => :s)",
            s=hours * 3600,
        )

    async def receipt(self, erasure_id: str, service: str) -> Disposition:
        body = {"erasure_id": erasure_id, "service": service, "at": "2026-11-25T10:15:30+00:00"}
        return await self.takes("erasure.receipt", body)

    def link(self, email: str, action: str = "unsubscribe", age: timedelta = timedelta()) -> str:
        """Sign what a mail's link carries."""
        return self.tokens.sign(email, "marketing", action, datetime.now(UTC) - age)

    def erasure_link(self, email: str, erasure_id: UUID, age: timedelta = timedelta()) -> str:
        return self.tokens.sign(email, str(erasure_id), "erasure", datetime.now(UTC) - age)

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        """Ask, or change, the database past the service."""
        async with self.engine.begin() as tx:
            found = await tx.execute(text(statement), values)
            return list(found) if found.returns_rows else []

    async def scalar(self, statement: str, **values: Any) -> Any:
        return (await self.rows(statement, **values))[0][0]

    async def everything(self) -> list[Any]:
        """Every row that a request could have changed."""
        tables = (
            "data_subject", "consent_state", "permit", "suppression", "erasure", "opt_in",
            "link_mail", "outbox", "consent_audit_log",
        )  # fmt: skip
        return [await self.rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]

    async def sent(self) -> list[str]:
        """Return where what is in the outbox goes, but for the records of our own looks."""
        rows = await self.rows("SELECT routing_key FROM outbox ORDER BY id")
        return [row.routing_key for row in rows if row.routing_key != "action.record"]

    @contextmanager
    def elsewhere(self) -> Iterator[Any]:
        """Give a cursor of another session, which may do everything."""
        with closing(psycopg2.connect(self.database.superuser_url)) as other:
            yield other.cursor()

    def tamper(self, *statements: str) -> None:
        """Do what someone with the owner's password could."""
        with closing(psycopg2.connect(self.database.owner_url)) as owner, owner:
            cursor = owner.cursor()
            cursor.execute("ALTER TABLE consent_audit_log DISABLE TRIGGER USER")
            for statement in statements:
                cursor.execute(statement)
            for trigger in ("trail_link", "trail_refuse"):
                cursor.execute(f"ALTER TABLE consent_audit_log ENABLE ALWAYS TRIGGER {trigger}")

    async def mails(self) -> list[dict[str, Any]]:
        """Return the mails that were handed to alerts, oldest first."""
        return [
            row.body
            for row in await self.rows(
                "SELECT body FROM outbox WHERE routing_key = 'alerts.intake' ORDER BY id"
            )
        ]

    async def mailed_token(self, page: str) -> str:
        plain = (await self.mails())[-1]["payload"]["text"]
        found = re.search(rf"https://ostoja\.example\.com/{page}/confirm\?token=(\S+)", plain)
        assert found is not None
        return found[1]

    async def orders(self) -> list[tuple[str, dict[str, Any]]]:
        rows = await self.rows(
            "SELECT routing_key, body FROM outbox WHERE type = 'person.erased' ORDER BY id"
        )
        return [(row.routing_key, row.body) for row in rows]

    async def purge(self, **days: int) -> int:
        async with self.engine.begin() as tx:
            return await upkeep.purge(tx, KEPT | days)

    async def grant(self, email: str, agreed: Agreement | None = None, **more: Any) -> bool:
        async with self.engine.begin() as tx:
            given = agreed or agreement()
            return await changes.grant(tx, self.vault, opt_in(email), given, **more)

    async def withdraw(
        self, email: str = ANNA, *purposes: str, tx: AsyncConnection | None = None, **more: Any
    ) -> Withdrawal:
        request = WithdrawalRequest(unsubscribe(email), purposes or ALL, **more)
        async with nullcontext(tx) if tx else self.engine.begin() as begun:
            return await changes.withdraw(begun, self.vault, request, suppression_days=1)

    async def answered(
        self, withdrawal: Withdrawal, patience: float = 0.3
    ) -> tuple[WithdrawalResult, int]:
        return await permits.wait_until_answerable(
            self.engine, withdrawal, patience=patience, quarantine=600, stopping=self.stopping
        )

    async def permit(
        self,
        email: str = ANNA,
        purpose: str = "marketing",
        message: UUID | None = None,
        attempt: int = 1,
    ) -> PermitAnswer:
        asked = PermitRequest(
            message=message or uuid4(), attempt=attempt, address=email, purpose=purpose
        )
        async with self.engine.begin() as tx:
            return await permits.request(tx, self.vault, asked, 20)

    async def ask(self, message: UUID | None = None, attempt: int = 1, **of: str) -> PermitDecision:
        return (await self.permit(message=message, attempt=attempt, **of)).decision

    async def give_back(self, message: UUID, attempt: int = 1) -> None:
        await run.alone(self.engine, "return_permit", message=message, attempt=attempt)

    async def states(self, email: str) -> dict[str, str]:
        """Return how each purpose stands of which this address has said something."""
        async with self.engine.begin() as tx:
            found = await consents.states(tx, self.vault.lookup_hash(email))
        return {purpose: str(state) for purpose, state in found.items()}

    async def suppression(self, email: str) -> Any:
        """What holds an address back, known or not."""
        hashed = self.vault.suppression_hash(email)
        of = {"subject": uuid4(), "hash": hashed, "purpose": "marketing"}
        async with self.engine.begin() as tx:
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
