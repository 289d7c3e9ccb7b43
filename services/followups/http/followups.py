"""Routes: parse, call, answer."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, Field, StringConstraints, model_validator
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.database import postgres
from libs.common.email_address import MalformedEmail, normalise
from libs.common.http.application import (
    ADDRESS_FROM,
    CALLER,
    CLIENT_ADDRESS,
    Model,
    Problem,
    accepted_at,
    json_response,
    only,
    parse,
    path_id,
    unavailable_when,
)
from libs.common.messaging.broker import Broker
from libs.common.process import logs
from services.followups import chat, facts, lead_files, metrics, staff, table
from services.followups.chat import Reply
from services.followups.config import Config
from services.followups.llm import REMEMBERED, ChatModel
from services.followups.store import conversations, steps
from services.followups.store.tables import Row
from services.followups.understanding import phone

log = logs.get_logger(__name__)

MESSAGE_LENGTH = 4000
WORDING_LENGTH = 4000
LONGEST_DELAY = 365 * 24 * 3600
PAGE = 100
HEALTH_SECONDS = 2.0
TURNS_AT_A_TIME = 6
"""Of the pool's ten connections. Here who waits is served in turn; in the pool a newcomer may take
what was given back until the one who waits has waited too long. The rest is for the other work."""

Email = Annotated[str, Field(max_length=254), AfterValidator(normalise)]


class Consent(Model):
    marketing: bool
    text: str = Field("", max_length=WORDING_LENGTH)

    @model_validator(mode="after")
    def _agreement_has_a_wording(self) -> Self:
        if self.marketing and not self.text.strip():
            raise ValueError("an agreement needs the text that was agreed to")
        return self


class ChatMessage(Model):
    message: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MESSAGE_LENGTH)
    ]
    session_id: str = Field(pattern=r"^[^\s\x00-\x1f\x7f]{1,200}$")
    email: Email | None = None
    name: (
        Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
        | None
    ) = None
    phone: str | None = Field(None, pattern=r"^[+(]?[0-9][0-9 ().\-]{5,28}[0-9]$")
    language: str | None = Field(None, pattern=r"^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*$")
    consent: Consent | None = None


class OnePerson(Model):
    email: Email | None = None
    conversation_id: UUID | None = None

    @model_validator(mode="after")
    def _names_one_person(self) -> Self:
        if (self.email is None) == (self.conversation_id is None):
            raise ValueError("give either email or conversation_id")
        return self


class Enrolment(OnePerson):
    sequence: str = Field("default", max_length=60)
    delay_seconds: int | None = Field(None, ge=0, le=LONGEST_DELAY)


class Stop(OnePerson):
    reason: Literal["reply", "staff", "bounce"]
    """`reply` by mail or phone; `staff` took over; `bounce`: the address takes no mail for good."""


class Routes:
    def __init__(
        self,
        engine: AsyncEngine,
        broker: Broker,
        config: Config,
        link: staff.Link,
        model: ChatModel | None = None,
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._config = config
        self._link = link
        self._model = model
        self._turns = asyncio.Semaphore(TURNS_AT_A_TIME)

    def add_to(self, app: web.Application) -> None:
        app.middlewares.append(unavailable_when(postgres.is_transient))
        app.router.add_post("/api/chatbot/chat", self.chat)
        app.router.add_post("/api/followups", only("service", self.enrol))
        app.router.add_get("/api/followups", only("service", self.list))
        app.router.add_post("/api/followups/stop", only("service", self.stop))
        app.router.add_delete("/api/followups/{id}", only("service", self.cancel))
        app.router.add_post("/api/leads/import", only("service", self.import_leads))
        app.router.add_get("/health/deep", self.health)

    async def chat(self, request: web.Request) -> web.Response:
        body = await parse(request, ChatMessage)
        vouched = request.headers.get(CALLER) in {"service", "admin"}
        agreed = body.consent.text.strip() if body.consent and body.consent.marketing else None
        if agreed is not None and not vouched and self._config.published(agreed) is None:
            # Consent would not count it. The dialogue asks for itself, in the company's words.
            log.warning("chat.unknown_wording")
            agreed = None
        said = chat.Said(
            message=body.message,
            session_id=body.session_id,
            passed=facts.Facts(
                email=body.email,
                name=facts.person_name(body.name) if body.name else None,
                phone=phone.canonical(body.phone) if body.phone else None,
            ),
            language=body.language[:2].lower() if body.language else None,
            agreed=agreed,
            ip_address=request.headers.get(CLIENT_ADDRESS),
            ip_address_from=request.headers.get(ADDRESS_FROM),
            user_agent=request.headers.get("User-Agent"),
            vouched=vouched,
        )
        async with self._turns, self._engine.begin() as tx:
            answer = await chat.take_turn(tx, self._config, self._link, said, accepted_at(request))
        return json_response(
            {
                "reply": await self._worded(answer),
                "session_id": body.session_id,
                "conversation_id": str(answer.conversation_id),
                "lead_score": answer.score,
            }
        )

    async def _worded(self, answer: Reply) -> str:
        """Let the model word the reply, where there is one and the database is there for it.

        The turn was committed before: told of a failure, a client would have it taken once more.
        """
        if self._model is None or answer.is_fixed:
            return answer.reply
        try:
            return await self._worded_by(self._model, answer)
        except Exception as error:
            if not postgres.is_transient(error):
                raise
            log.warning("chat.database_unavailable", error=type(error).__name__)
            return answer.reply

    async def _worded_by(self, model: ChatModel, answer: Reply) -> str:
        async with self._engine.connect() as tx:
            said = await conversations.said_before(
                tx, answer.conversation_id, answer.reply_id, REMEMBERED
            )
        reply = await model.reply(said, answer.reply, answer.language, answer.private)
        if reply is None:
            return answer.reply
        async with self._engine.begin() as tx:
            await conversations.reword(tx, answer.reply_id, reply)
        return reply

    async def enrol(self, request: web.Request) -> web.Response:
        """202 with the steps that were scheduled, or 200 with those that there already were."""
        body = await parse(request, Enrolment)
        if body.sequence not in self._config.sequences:
            raise Problem(422, errors=[("sequence", "no such sequence is configured")])
        delay = None if body.delay_seconds is None else timedelta(seconds=body.delay_seconds)
        due = self._config.due_times(body.sequence, datetime.now(UTC), first_delay=delay)
        async with self._engine.begin() as tx:
            conversation_id, email = await self._conversation(tx, body)
            if email is None:
                raise Problem(
                    422, errors=[("conversation_id", "no e-mail is known in this conversation")]
                )
            await conversations.resume_followups(tx, conversation_id, email)
            await steps.lock_address(tx, email)
            if await conversations.followups_ended_by(tx, conversation_id, email):
                raise Problem(409, detail="mail to this address has bounced")
            enrolled = await steps.enrol(
                tx, conversation_id, email, body.sequence, due, "api", logs.request_id.get()
            )
            rows, changed = enrolled.rows, enrolled.is_new
            if all(row["enrolled_by"] == "chat" and row["status"] == "scheduled" for row in rows):
                # The chat enrolled this lead by itself; a person asks now, and decides when.
                await steps.retime(tx, rows, due, "api")
                rows = await steps.rows_of(tx, steps.in_ids([row["id"] for row in rows]))
                changed = True
        return json_response(
            {"items": [_item(row) for row in rows], "next_cursor": None},
            status=202 if changed else 200,
        )

    async def _conversation(self, tx: AsyncConnection, body: OnePerson) -> tuple[UUID, str | None]:
        if body.conversation_id is None:
            assert body.email is not None  # noqa: S101 - one of the two, says the model
            return await conversations.conversation_of_address(tx, body.email), body.email
        found = await conversations.conversation(tx, body.conversation_id)
        if found is None:
            raise Problem(404, detail="no such conversation")
        return found["id"], found["email"]

    async def stop(self, request: web.Request) -> web.Response:
        """End the follow-ups of a recipient in all conversations, for a reason that staff know.

        What is in the outbox is taken back; what alerts has already asks for a permit, and leaves.
        """
        body = await parse(request, Stop)
        async with self._engine.begin() as tx:
            conversation_id, email = await self._conversation(tx, body)
            if body.reason != "reply":
                await conversations.end_followups(tx, conversation_id, email, body.reason)
            if email is not None:
                await steps.lock_address(tx, email)
            which = steps.of_recipient(conversation_id, email)
            stopped = await steps.stop(tx, which, body.reason)
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        return json_response({"cancelled": len(stopped)})

    async def list(self, request: web.Request) -> web.Response:
        which = _asked_for(request.query)
        after = _uuid(request.query["cursor"], "cursor") if "cursor" in request.query else None
        async with self._engine.begin() as tx:
            rows = await steps.page(tx, which, after, PAGE + 1)
        more = len(rows) > PAGE
        rows = rows[:PAGE]
        return json_response(
            {
                "items": [_item(row) for row in rows],
                "next_cursor": str(rows[-1]["id"]) if more else None,
            }
        )

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a step and, as a cancel does, the rest of its sequence."""
        followup_id = path_id(request, "follow-up")
        async with self._engine.begin() as tx:
            row = await steps.step(tx, followup_id)
            if row is None:
                raise Problem(404, detail="no such follow-up")
            await steps.lock_address(tx, row["email"])
            stopped = await steps.stop(tx, steps.from_step(row), "cancelled by request")
            row = await steps.step(tx, followup_id)
        if row is None:
            raise Problem(404, detail="this person was erased meanwhile")
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        if row["status"] != "cancelled":
            raise Problem(409, detail=f"this follow-up is already {row['status']}")
        return json_response(_item(row) | {"cancelled": len(stopped)})

    async def import_leads(self, request: web.Request) -> web.Response:
        """Take a file as it comes; of what cannot be taken each row is named with its line."""
        parts = request.content.iter_any()
        # A generated client sends any file as the second.
        if request.content_type in {"text/csv", "application/octet-stream"}:
            records = table.csv_records(parts, lead_files.COLUMNS)
        elif request.content_type in {"application/x-ndjson", "application/jsonl"}:
            records = table.json_lines(parts)
        else:
            raise Problem(415, detail="send text/csv or application/x-ndjson")
        report = await lead_files.take(self._engine, self._config, records)
        return json_response(report.as_json())

    async def health(self, _: web.Request) -> web.Response:
        """Without the broker the chat goes on: what must be told waits in the outbox."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS), self._engine.connect() as tx:
                waiting = await steps.outbox_length(tx)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            database, waiting = f"unhealthy: {type(error).__name__}", None
        else:
            database = "healthy"
        rabbitmq = "healthy" if self._broker.connected else "degraded"
        status = "unhealthy" if waiting is None else rabbitmq
        return json_response(
            {
                "status": status,
                "components": {
                    "postgres": {"status": database.partition(":")[0]}
                    | ({"detail": database} if waiting is None else {}),
                    "rabbitmq": {"status": rabbitmq},
                },
                "outbox": waiting,
            }
        )


def _asked_for(query: Mapping[str, str]) -> Any:
    if ("email" in query) == ("conversation_id" in query):
        raise Problem(422, detail="give either email or conversation_id")
    if "email" not in query:
        return steps.of_conversation(_uuid(query["conversation_id"], "conversation_id"))
    try:
        return steps.of_address(normalise(query["email"]))
    except MalformedEmail as error:
        raise Problem(422, errors=[("email", str(error))]) from None


def _uuid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(422, errors=[(field, "not a UUID")]) from None


_SHOWN = (
    "id", "conversation_id", "followup_number", "email", "sequence", "step", "status", "reason",
    "due_at", "handed_over_at", "sent_at", "created_at",
)  # fmt: skip


def _item(row: Row) -> dict[str, Any]:
    return {
        name: row[name].isoformat() if isinstance(row[name], datetime) else row[name]
        for name in _SHOWN
    }
