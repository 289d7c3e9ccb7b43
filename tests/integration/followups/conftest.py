"""Followups' own tables on a real PostgreSQL."""

import base64
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import db
from libs.common.tokens import Tokens
from services.followups import chat, config
from services.followups.facts import Facts
from services.followups.mail import Mails
from services.followups.scheduler import Scheduler
from services.followups.store import conversations, tables
from services.followups.store import steps as store
from tests.conftest import NewDatabase

CONFIG = config.load(Path(__file__).parents[3] / "config/followups.toml", quiet_hours=False)
TOKENS = Tokens(f"k1:{base64.b64encode(bytes(32)).decode()}")
GOOD_LEAD = "Chcę wykończyć mieszkanie 80 m2, budżet 250 tys. zł, od marca"


@pytest.fixture(params=["postgresql+aiopg", "postgresql+asyncpg"])
async def engine(
    database: NewDatabase, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncEngine]:
    url = (await database("followups")).replace("postgresql+aiopg", request.param)
    async with db.connect(url, application_name="followups") as opened:
        yield opened


@pytest.fixture
def scheduler(engine: AsyncEngine) -> Callable[..., Scheduler]:
    def make(cap: int = 1) -> Scheduler:
        return Scheduler(engine, CONFIG, Mails(CONFIG, TOKENS, "https://ostoja.example.com"), cap)

    return make


class World:
    """What a test says and sees."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def say(
        self, message: str, session: str = "s1", *, agreed: str | None = None, **passed: Any
    ) -> chat.Answer:
        said = chat.Said(
            message=message, session_id=session, passed=Facts(**passed), language=None,
            agreed=agreed, ip_address="203.0.113.7", user_agent="test",
        )  # fmt: skip
        async with self.engine.begin() as tx:
            return await chat.take_turn(tx, CONFIG, said, datetime.now(UTC))

    async def enrol(self, email: str, *, seconds: int = 0, steps: int = 2) -> list[tables.Row]:
        """Enrol as the API does; with steps a second apart, due from now on."""
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
        """Let time pass for what was handed over."""
        async with self.engine.begin() as tx:
            await tx.execute(
                sa.update(tables.followup_event).values(
                    handed_over_at=tables.followup_event.c.handed_over_at
                    - sa.text(f"interval '{hours} hours'")
                )
            )

    async def steps(self, email: str | None = None) -> list[tables.Row]:
        which = store.of_address(email) if email else sa.true()
        async with self.engine.begin() as tx:
            return list(await store.rows_of(tx, which))

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


@pytest.fixture
def world(engine: AsyncEngine) -> World:
    return World(engine)
