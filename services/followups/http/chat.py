"""The chat: one message or tap in, one reply out."""

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any, Self

from aiohttp import web
from pydantic import (
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import (
    ADDRESS_FROM,
    CALLER,
    CLIENT_ADDRESS,
    Model,
    Problem,
    accepted_at,
    json_response,
    parse,
)
from libs.common.process.logs import log
from libs.domain import email_address, phone_number
from libs.domain.company import Wording
from libs.domain.email_address import Email
from libs.domain.forms import MARKETING
from services.followups import chat
from services.followups.chat import Reply
from services.followups.config import Config
from services.followups.dialogue.hearing import NO_HINT, Hint
from services.followups.dialogue.state import State
from services.followups.dialogue.taps import Tap, Unfit, Value
from services.followups.http.model import Model as ChatModel
from services.followups.leads import staff
from services.followups.mails.enrolment import Said
from services.followups.reading import phone
from services.followups.rules import facts

MESSAGE_LENGTH = 4000
WORDING_LENGTH = 4000
TURNS_AT_A_TIME = 6
"""Chat turns that run at once, out of the pool's ten connections; the rest serve the other work.
This semaphore is fair. In the pool, a newcomer may overtake a waiting turn until that times out."""


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Consent(Model):
    marketing: bool
    text: str = Field("", max_length=WORDING_LENGTH)
    wording: str = Field("", pattern="^([0-9a-f]{64})?$")
    """The SHA-256 of the text; one of the two."""

    @model_validator(mode="after")
    def _agreement_has_a_wording(self) -> Self:
        if self.marketing and not (self.text.strip() or self.wording):
            raise ValueError("text or wording is required when marketing is true")
        return self


def _value(given: Any) -> Value:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return "number", given
    if not isinstance(given, str):
        raise ValueError("must be a number or a text")  # noqa: TRY004 - pydantic's
    if "@" in given:
        return "email", email_address.normalise(given)
    if re.fullmatch(r"\d{4}-\d\d(-\d\d)?", given, re.ASCII):
        date.fromisoformat(f"{given}-01"[:10])
        return "month", given
    # As written in some country: the language of the talk says which.
    is_national = re.fullmatch(r"\(?(?!00)\d[\d ()./-]{6,24}", given, re.ASCII)
    return "phone", given if is_national else phone_number.normalise(given)


class ChatTap(Model):
    ask: str = Field(pattern=r"^[a-z]{1,20}(-[0-9]{1,9})?$")
    choice: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,60}$")
    value: Annotated[Value, PlainValidator(_value)] | None = None
    wording: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """The SHA-256 of the wording of consent that was shown."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.choice is None) == (self.value is None):
            raise ValueError("needs either choice or value")
        return self


class ChatMessage(Model):
    tap: ChatTap | None = None
    message: Annotated[_Text, Field(max_length=MESSAGE_LENGTH)] | None = Field(
        None, validate_default=True
    )
    session_id: str = Field(pattern=r"^[^\s\x00-\x1f\x7f]{1,200}$")
    email: Email | None = None
    name: Annotated[_Text, Field(max_length=200)] | None = None
    phone: str | None = Field(None, pattern=r"^[+(]?[0-9][0-9 ().\-]{5,28}[0-9]$")
    language: str | None = Field(None, pattern=r"^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*$")
    consent: Consent | None = None
    greeted: bool = False

    @field_validator("message")
    @classmethod
    def _is_alone(cls, message: str | None, given: ValidationInfo) -> str | None:
        if "tap" in given.data and (message is None) == (given.data["tap"] is None):
            raise ValueError("needs either message or tap")
        return message


@dataclass(frozen=True, eq=False)
class ChatRoutes:
    engine: AsyncEngine
    config: Config
    link: staff.Link
    model: ChatModel | None = None
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TURNS_AT_A_TIME))

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/chatbot/chat", self.opening)
        app.router.add_post("/api/chatbot/chat", self.chat)

    async def opening(self, request: web.Request) -> web.Response:
        """What a chat can show before the first message; it stores nothing."""
        language = self.config.language_of(request.query.get("language"))
        return json_response(self.opening_in(language))

    def opening_in(self, language: str) -> dict[str, Any]:
        today = self.config.today(datetime.now(UTC))
        ask = self.config.taps.ask(State(language=language), today)
        return {"reply": self.config.texts[language]["greeting"], "ask": ask}

    async def chat(self, request: web.Request) -> web.Response:
        body = await parse(request, ChatMessage)
        try:
            answer, shown = await self.answer(request, body)
        except Unfit as unfit:
            raise Problem(422, errors=[(unfit.field, str(unfit))]) from None
        told = shown | {
            "session_id": body.session_id,
            "conversation_id": str(answer.conversation_id),
        }
        if request.headers.get(CALLER) == "service":  # a visitor need not know it
            told["lead_score"] = answer.score
        return json_response(told)

    async def answer(
        self, request: web.Request, body: ChatMessage, replies: str | None = None
    ) -> tuple[Reply, dict[str, Any]]:
        """Return the reply, and what a client shows of it.

        :param replies: how many the page shows; a message to an older one changes nothing
        :raises Unfit: a tap that the last reply does not offer
        """
        agreed: Wording | None = None
        if body.consent and body.consent.marketing:
            agreed = self.config.published(body.consent.wording or body.consent.text)
            if agreed is None or not agreed.allows(MARKETING):
                # It proves nothing. The dialogue asks again, with the configured wording.
                agreed = None
                log.warning("chat.unknown_wording")
        said = Said(
            message=body.message or "",
            tap=Tap(**dict(body.tap)) if body.tap else None,
            greeted=body.greeted,
            session_id=body.session_id,
            passed=facts.Facts(
                email=body.email,
                name=facts.person_name(body.name) if body.name else None,
                phone=phone.canonical(body.phone) if body.phone else None,
            ),
            language=body.language[:2].lower() if body.language else None,
            agreed=agreed.text if agreed else None,
            ip_address=request.headers.get(CLIENT_ADDRESS),
            ip_address_from=request.headers.get(ADDRESS_FROM),
            user_agent=request.headers.get("User-Agent"),
        )
        now, taps = accepted_at(request), self.config.taps
        reply = await self._turn(said, now, replies, None if self.model else NO_HINT)
        if reply.unclear and self.model:
            hint = await self.model.read(reply.unclear)
            reply = await self._turn(said, now, replies, hint)
        ask = taps.ask(reply.state, self.config.today(now))
        return reply, {"reply": reply.reply, "ask": ask, "card": taps.card(reply.state)}

    async def _turn(
        self, said: Said, now: datetime, replies: str | None, hint: Hint | None
    ) -> Reply:
        async with self.turns, self.engine.begin() as tx:
            return await chat.take_turn(tx, self.config, self.link, said, now, replies, hint)
