"""Followups on real tables: its routes as the gateway calls them, and what its queues bring."""

import asyncio
import base64
import re
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
import yaml
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import health
from libs.common.database import postgres
from libs.common.health import HealthRoute
from libs.common.http.application import CALLER, create_app, unavailable_when
from libs.common.process.settings import Settings
from libs.domain import forms
from libs.domain.signed_links import Tokens
from services.followups import chat, config
from services.followups.consumers import Consumers
from services.followups.http.acts import ActRoutes
from services.followups.http.chat import ChatRoutes
from services.followups.http.chat_page import ChatPage
from services.followups.http.followups import FollowupRoutes
from services.followups.http.leads import LeadRoutes
from services.followups.http.mail import MailRoutes
from services.followups.http.model import Model
from services.followups.inbox import reader
from services.followups.inbox.acting import Inbox
from services.followups.leads import imports
from services.followups.leads.acts import Acts
from services.followups.leads.staff import Announcer
from services.followups.leads.submissions import Submissions
from services.followups.mails.compose import Mails
from services.followups.mails.enrolment import Said
from services.followups.mails.scheduler import Scheduler
from services.followups.rules.facts import Facts
from services.followups.store import acts, conversations, leads, sql, tables
from services.followups.store import steps as store
from services.followups.store.sql import run
from services.followups.store.submissions import Erased
from tests.conftest import NewDatabase
from tests.support.dovecot import Dovecot, running
from tests.support.eventually import eventually
from tests.support.mails import MARKS, sample
from tests.support.ports import Ports
from tests.support.shipped import EXAMPLE

CONFIG = config.load(EXAMPLE / "followups.toml", EXAMPLE / "company.toml", quiet_hours=False)
TOKENS = Tokens(f"k1:{base64.b64encode(bytes(32)).decode()}")
CONTACT = forms.load(EXAMPLE / "forms.toml")["contact"]
MAILED = "anna@example.org"
GOOD_LEAD = "Chcę wykończyć mieszkanie 80 m2, budżet 250 tys. zł, od marca"


_REFUSED = Path(__file__).with_name("refused.yaml").read_text(encoding="utf-8")
REFUSED: dict[str, list[tuple[dict[str, Any], Any]]] = yaml.safe_load(
    re.sub(r"x\*(\d+)", lambda found: "x" * int(found[1]), _REFUSED)
)
KEY = "internal-key-of-this-test"
NO_BROKER: Any = SimpleNamespace(connected=False)  # these handlers send no reply
UNASKED = {"state": "none", "since": None, "wording": None}


class _NobodyErased(imports.Consent):
    """Consent has erased nobody; its answer is in tests/integration/system/test_import.py."""

    def __init__(self) -> None:
        super().__init__(Mock(), Erased([b"k" * 32]))

    async def without(self, rows: list[imports.LeadRow]) -> list[imports.LeadRow]:
        return rows

    async def marketing(self, known: Mapping[str, Any]) -> dict[str, Any]:
        return {by: UNASKED for by in ("email", "phone") if known.get(by)}


NOBODY_ERASED = _NobodyErased()


@pytest.fixture
async def engine(database: NewDatabase) -> AsyncIterator[AsyncEngine]:
    url = await database("followups")
    async with postgres.connect(url, application_name="followups") as opened:
        yield opened


@pytest.fixture
async def world(engine: AsyncEngine) -> AsyncIterator["World"]:
    async with World(engine).serving() as served:
        yield served


@pytest.fixture
def dovecot(ports: Ports) -> Iterator[Dovecot]:
    with running(ports) as server:
        yield server


def link(lead_id: uuid.UUID) -> str:
    return f"https://ostoja.example.com/console/leads/{lead_id}"


class World:
    """A process of followups that a test calls as Ola, and its tables, which it sees past it."""

    client: TestClient[Any, Any]

    def __init__(self, engine: AsyncEngine, configured: config.Config = CONFIG) -> None:
        self.engine, self.config = engine, configured
        self.forms = Submissions(
            engine, configured, {"contact": CONTACT}, link, Erased([b"k" * 32])
        )
        self.consumers = Consumers(engine, NO_BROKER, self.forms)
        self.inbox = Inbox(engine, configured, link, MARKS)

    @asynccontextmanager
    async def serving(self, model: Model | None = None) -> AsyncIterator["World"]:
        engine, configured = self.engine, self.config
        app = create_app(internal_key=KEY)
        app.middlewares.append(unavailable_when(postgres.is_transient))
        talks = ChatRoutes(engine, configured, link, model)
        leads = LeadRoutes(engine, configured, link, NOBODY_ERASED)
        look = partial(health.with_outbox, engine, NO_BROKER)
        for routes in (
            talks,
            ChatPage(talks, configured),
            FollowupRoutes(engine, configured, self.mails),
            leads,
            ActRoutes(Acts(engine, configured, link), leads),
            MailRoutes(self.inbox, asyncio.Semaphore(1)),
            HealthRoute(look, "followups", Settings(), NO_BROKER, Path()),
        ):
            routes.add_to(app)
        headers = {"X-Internal-Key": KEY, CALLER: "service", "X-Operator": "Ola"}
        async with TestClient(TestServer(app), headers=headers) as self.client:
            yield self

    @property
    def mails(self) -> Mails:
        return Mails(self.config, TOKENS, "https://ostoja.example.com")

    def scheduler(self, cap: int = 1, **changes: Any) -> Scheduler:
        configured = replace(self.config, **changes)
        mails = Mails(configured, TOKENS, "https://ostoja.example.com")
        return Scheduler(self.engine, configured, mails, cap)

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.client.request(method, path, **options) as answer:
            is_json = answer.content_type.endswith("json")
            return answer.status, await (answer.json() if is_json else answer.text())

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        return await self.call("POST", path, json=body, headers=headers)

    async def get(self, path: str, **query: str) -> Any:
        status, told = await self.call("GET", path, params=query)
        assert status == 200, told
        return told

    async def listed(self, what: str = "leads", **query: str) -> list[dict[str, Any]]:
        body = await self.get(f"/api/{what}", **query)
        assert set(body) == {"items", "next_cursor"}
        items: list[dict[str, Any]] = body["items"]
        return items

    async def act(
        self, lead: str, path: str, body: Mapping[str, Any], status: int = 200, by: str = "Ola"
    ) -> dict[str, Any]:
        """Do to a lead what staff may."""
        found, told = await self.post(f"/api/leads/{lead}/{path}", body, **{"X-Operator": by})
        assert found == status, told
        return dict(told)

    async def shown(self, lead: str) -> dict[str, Any]:
        return dict(await self.get(f"/api/leads/{lead}"))

    async def rows(self, table: sa.Table, *order: str) -> list[tables.Row]:
        """Return them all."""
        found = sa.select(table).order_by(*(table.c[name] for name in order))
        async with self.engine.begin() as tx:
            return list((await tx.execute(found)).mappings())

    async def sql(self, statement: str, **values: Any) -> list[Any]:
        """Ask, or change, the database past the service."""
        async with self.engine.begin() as tx:
            found = await tx.execute(sa.text(statement), values)
            return list(found.mappings()) if found.returns_rows else []

    async def someone_waits(self) -> None:
        """Wait until a statement waits for a lock."""

        async def waits() -> bool:
            return bool(
                await self.sql(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock'"
                )
            )

        await eventually(waits, 20)

    async def published(self) -> None:
        """As the relay leaves the outbox."""
        await self.sql("DELETE FROM outbox")

    async def say(
        self, message: str, session: str = "s1", *, agreed: str | None = None, **passed: Any
    ) -> chat.Reply:
        said = Said(
            message=message, session_id=session, passed=Facts(**passed), language=None,
            agreed=agreed, ip_address="203.0.113.7", user_agent="test",
        )  # fmt: skip
        async with self.engine.begin() as tx:
            return await chat.take_turn(tx, CONFIG, link, said, datetime.now(UTC))

    async def lead(self) -> tables.Row:
        """Return the only one."""
        [lead] = await self.leads()
        return lead

    async def leads(self) -> list[tables.Row]:
        """Return them all, oldest first."""
        return await self.rows(tables.lead, "created_at")

    async def tell_staff(self, *, after: float = 0) -> None:
        """Let this many seconds pass, and notify staff of what is due then."""
        await self.sql(
            "UPDATE lead SET due_at = due_at - make_interval(secs => :after)", after=after
        )
        await Announcer(self.engine, CONFIG, link).announce(datetime.now(UTC))

    async def enrol(self, email: str, *, seconds: int = 0, steps: int = 2) -> list[tables.Row]:
        """Enrol as the API does, with steps a second apart from now on."""
        now = datetime.now(UTC)
        due = [datetime.fromtimestamp(now.timestamp() + seconds + n, UTC) for n in range(steps)]
        async with self.engine.begin() as tx:
            conversation_id = await conversations.conversation_of_address(tx, email)
            await store.lock_address(tx, email)
            enrolment = await store.enrol(tx, conversation_id, email, "default", due, "api", None)
            return list(enrolment.rows)

    async def make_due(self, email: str | None = None) -> None:
        await self.sql(
            "UPDATE followup_event SET due_at = now() - interval '1 minute'"
            " WHERE status = 'scheduled' AND email = coalesce(:email, email)",
            email=email,
        )

    async def age(self, hours: int) -> None:
        """Let time pass since the hand-overs."""
        ago = f"handed_over_at - interval '{hours} hours'"
        await self.sql(f"UPDATE followup_event SET handed_over_at = {ago}")

    async def set_state(self, lead: uuid.UUID, state: str, by: str) -> None:
        """As staff do."""
        async with self.engine.begin() as tx:
            row = await sql.row(tx, "lock_lead", id=lead)
            assert row is not None
            owner = leads.person(by) if state == "taken" else None
            await acts.change_state(tx, row, state, by, datetime.now(UTC), owner=owner)

    async def erase(self, email: str) -> None:
        async with self.engine.begin() as tx:
            subject = conversations.Subject(email)
            found = await conversations.trace(tx, subject)
            await conversations.erase(tx, subject, found.conversations, chat.named_in)

    async def sent(self) -> None:
        """Mark all handed-over steps as sent at their hand-over."""
        await self.sql(
            "UPDATE followup_event SET status = 'sent', sent_at = handed_over_at,"
            " outcome_at = handed_over_at WHERE status = 'handed_over'"
        )

    async def steps(self, email: str | None = None) -> list[tables.Row]:
        rows = await self.rows(tables.followup_event, "created_at", "followup_number")
        return [row for row in rows if email in {None, row["email"]}]

    async def statuses(self, email: str | None = None) -> list[str]:
        return [row["status"] for row in await self.steps(email)]

    async def conversations(self) -> int:
        return len(await self.rows(tables.chat_conversations))

    async def said(self, author: str | None = None) -> list[str]:
        rows = await self.rows(tables.chat_message, "id")
        return [row["body"] for row in rows if author in {None, row["author"]}]

    async def pretend_sent(self, followup_id: str) -> None:
        await self.sql(
            "UPDATE followup_event SET status = 'sent', handed_over_at = now(), sent_at = now()"
            " WHERE id = CAST(:id AS uuid)",
            id=followup_id,
        )

    async def outbox(self, kind: str) -> list[dict[str, Any]]:
        rows = await self.rows(tables.outbox_table, "id")
        return [row["body"] for row in rows if row["type"] == kind]


class MailBack:
    """A lead whose first follow-up has left, and mails about that."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.inbox = world.inbox
        self.step = uuid.UUID(int=0)

    async def begin(self, said: str = f"{GOOD_LEAD}. {MAILED}") -> None:
        await self.world.say(said)
        first = (await self.world.steps(MAILED))[0]
        await self.world.pretend_sent(str(first["id"]))
        self.step = first["id"]

    def raw(self, name: str, **changes: str) -> bytes:
        raw = sample(name, self.step)
        for old, new in changes.items():
            raw = raw.replace(old.encode(), new.encode())
        return raw

    async def come(self, name: str, **changes: str) -> str:
        return await self.inbox.act(reader.read(self.raw(name, **changes)))

    async def rows(self) -> list[tables.Row]:
        return await self.world.rows(tables.mail)

    async def dead(self) -> list[tuple[str, str]]:
        found = await run.alone(self.world.engine, "undeliverable", after="", limit=10)
        return [(row.email, row.reason) for row in found]

    async def told(self) -> list[dict[str, Any]]:
        return [
            each["payload"]
            for each in await self.world.outbox("alert.accepted")
            if each["event_type"] == "visitor.mail"
        ]


@pytest.fixture
async def mail(world: World) -> MailBack:
    made = MailBack(world)
    await made.begin()
    return made
