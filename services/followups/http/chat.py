"""The chat: one message in, one reply out."""

import asyncio
from typing import Annotated, Self

from aiohttp import web
from pydantic import Field, StringConstraints, model_validator
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import (
    ADDRESS_FROM,
    CLIENT_ADDRESS,
    Model,
    accepted_at,
    json_response,
    parse,
)
from libs.common.process import logs
from libs.domain.company import Wording
from libs.domain.email_address import Email
from services.followups import chat
from services.followups.config import Config
from services.followups.leads import staff
from services.followups.mails.enrolment import Said
from services.followups.reading import phone
from services.followups.rules import facts

log = logs.get_logger(__name__)

MESSAGE_LENGTH = 4000
WORDING_LENGTH = 4000
TURNS_AT_A_TIME = 6
"""Chat turns that run at once, out of the pool's ten connections; the rest serve the other work.
This semaphore is fair. In the pool, a newcomer may overtake a waiting turn until that times out."""


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


class ChatRoutes:
    def __init__(self, engine: AsyncEngine, config: Config, link: staff.Link) -> None:
        self._engine = engine
        self._config = config
        self._link = link
        self._turns = asyncio.Semaphore(TURNS_AT_A_TIME)

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/api/chatbot/chat", self.chat)

    async def chat(self, request: web.Request) -> web.Response:
        body = await parse(request, ChatMessage)
        agreed: Wording | None = None
        if body.consent and body.consent.marketing:
            agreed = self._config.published(body.consent.wording or body.consent.text)
            if agreed is None:
                # It proves nothing. The dialogue asks again, with the configured wording.
                log.warning("chat.unknown_wording")
        said = Said(
            message=body.message,
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
        async with self._turns, self._engine.begin() as tx:
            answer = await chat.take_turn(tx, self._config, self._link, said, accepted_at(request))
        return json_response(
            {
                "reply": answer.reply,
                "session_id": body.session_id,
                "conversation_id": str(answer.conversation_id),
                "lead_score": answer.score,
            }
        )
