"""The tables of followups on a real PostgreSQL."""

import base64
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
import yaml
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from libs.common.http.application import CALLER, create_app
from libs.domain import forms
from libs.domain.signed_links import Tokens
from services.followups import chat, config
from services.followups.http.acts import ActRoutes
from services.followups.http.leads import LeadRoutes
from services.followups.leads import files as lead_files
from services.followups.leads.acts import Acts
from services.followups.leads.staff import Announcer
from services.followups.leads.submissions import Submissions
from services.followups.mails.compose import Mails
from services.followups.mails.enrolment import Said
from services.followups.mails.scheduler import Scheduler
from services.followups.rules.facts import Facts
from services.followups.store import acts, conversations, leads, sql, tables
from services.followups.store import steps as store
from services.followups.store.submissions import Erased
from tests.conftest import NewDatabase
from tests.support.dovecot import Dovecot, running
from tests.support.ports import Ports
from tests.support.shipped import EXAMPLE

CONFIG = config.load(EXAMPLE / "followups.toml", EXAMPLE / "company.toml", quiet_hours=False)
TOKENS = Tokens(f"k1:{base64.b64encode(bytes(32)).decode()}")
CONTACT = forms.load(EXAMPLE / "forms.toml")["contact"]
GOOD_LEAD = "Chcę wykończyć mieszkanie 80 m2, budżet 250 tys. zł, od marca"


_REFUSED = Path(__file__).with_name("refused.yaml").read_text(encoding="utf-8")
REFUSED: dict[str, list[tuple[dict[str, Any], Any]]] = yaml.safe_load(
    re.sub(r"x\*(\d+)", lambda found: "x" * int(found[1]), _REFUSED)
)
UNASKED = {"state": "none", "since": None, "wording": None}


class _NobodyErased(lead_files.Consent):
    """Consent has erased nobody; its answer is in tests/integration/system/test_import.py."""

    def __init__(self) -> None:
        super().__init__(Mock(), Erased([b"k" * 32]))

    async def without(self, rows: list[lead_files.LeadRow]) -> list[lead_files.LeadRow]:
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
def dovecot(ports: Ports) -> Iterator[Dovecot]:
    with running(ports) as server:
        yield server


@pytest.fixture
def scheduler(engine: AsyncEngine) -> Callable[..., Scheduler]:
    def make(cap: int = 1, **changes: Any) -> Scheduler:
        configured = replace(CONFIG, **changes)
        return Scheduler(engine, configured, mails(configured), cap)

    return make


def mails(configured: config.Config) -> Mails:
    return Mails(configured, TOKENS, "https://ostoja.example.com")


def link(lead_id: uuid.UUID) -> str:
    return f"https://ostoja.example.com/console/leads/{lead_id}"


KEY = "internal-key-of-this-test"
Client = TestClient[Any, Any]


@pytest.fixture
async def client(engine: AsyncEngine) -> AsyncIterator[Client]:
    """The API of leads, as Ola calls it."""
    app = create_app(internal_key=KEY)
    routes = LeadRoutes(engine, CONFIG, link, NOBODY_ERASED)
    routes.add_to(app)
    ActRoutes(Acts(engine, CONFIG, link), routes).add_to(app)
    headers = {"X-Internal-Key": KEY, CALLER: "service", "X-Operator": "Ola"}
    async with TestClient(TestServer(app), headers=headers) as opened:
        yield opened


class World:
    """Drives followups from a test and reads its tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def say(
        self, message: str, session: str = "s1", *, agreed: str | None = None, **passed: Any
    ) -> chat.Reply:
        said = Said(
            message=message, session_id=session, passed=Facts(**passed), language=None,
            agreed=agreed, ip_address="203.0.113.7", user_agent="test",
        )  # fmt: skip
        async with self.engine.begin() as tx:
            return await chat.take_turn(tx, CONFIG, link, said, datetime.now(UTC))

    async def lead(self) -> tables.Row | None:
        async with self.engine.begin() as tx:
            return (await tx.execute(sa.select(tables.lead))).mappings().one_or_none()

    async def tell_staff(self, *, after: float = 0) -> None:
        """Let this many seconds pass, and notify staff of what is due then."""
        past = sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, after)
        async with self.engine.begin() as tx:
            due = sa.update(tables.lead).where(tables.lead.c.due_at.is_not(None))
            await tx.execute(due.values(due_at=tables.lead.c.due_at - (sa.func.now() - past)))
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
        update = sa.update(tables.followup_event).where(
            tables.followup_event.c.status == "scheduled"
        )
        if email:
            update = update.where(tables.followup_event.c.email == email)
        async with self.engine.begin() as tx:
            await tx.execute(update.values(due_at=sa.text("now() - interval '1 minute'")))

    async def age(self, hours: int) -> None:
        """Let time pass since the hand-overs."""
        async with self.engine.begin() as tx:
            await tx.execute(
                sa.update(tables.followup_event).values(
                    handed_over_at=tables.followup_event.c.handed_over_at
                    - sa.text(f"interval '{hours} hours'")
                )
            )

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
        sent = sa.update(tables.followup_event).where(
            tables.followup_event.c.status == "handed_over"
        )
        at = tables.followup_event.c.handed_over_at
        async with self.engine.begin() as tx:
            await tx.execute(sent.values(status="sent", sent_at=at, outcome_at=at))

    async def steps(self, email: str | None = None) -> list[tables.Row]:
        table = tables.followup_event
        found = sa.select(table).order_by(table.c.created_at, table.c.followup_number)
        found = found.where(table.c.email == email) if email else found
        async with self.engine.begin() as tx:
            return list((await tx.execute(found)).mappings())

    async def statuses(self, email: str | None = None) -> list[str]:
        return [row["status"] for row in await self.steps(email)]

    async def conversations(self) -> int:
        async with self.engine.begin() as tx:
            counted = sa.select(sa.func.count()).select_from(tables.chat_conversations)
            return (await tx.execute(counted)).scalar_one()

    async def pretend_sent(self, followup_id: str) -> None:
        async with self.engine.begin() as tx:
            await tx.execute(
                sa.update(tables.followup_event)
                .where(tables.followup_event.c.id == uuid.UUID(followup_id))
                .values(status="sent", handed_over_at=sa.func.now(), sent_at=sa.func.now())
            )

    async def outbox(self, kind: str) -> list[dict[str, Any]]:
        table = tables.outbox_table
        async with self.engine.begin() as tx:
            rows = await tx.execute(
                sa.select(table.c.body).where(table.c.type == kind).order_by(table.c.id)
            )
            return list(rows.scalars())


def submissions_of(engine: AsyncEngine) -> Submissions:
    return Submissions(engine, CONFIG, {"contact": CONTACT}, link, Erased([b"k" * 32]))


@pytest.fixture
def world(engine: AsyncEngine) -> World:
    return World(engine)
