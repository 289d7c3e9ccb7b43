"""The transcript page for staff, behind a signed link."""

from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import jinja2
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.signed_links import InvalidToken, Tokens
from services.followups.config import Config
from services.followups.store import conversations

ACTION = "transcript"
LIFETIME = timedelta(days=90)
MOST_MESSAGES = 500

_PAGE = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
).from_string(
    files("services.followups").joinpath("templates", "transcript.html").read_text(encoding="utf-8")
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # whoever has the URL may read the page
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
}
_WORDS = {
    "pl": {
        "title": "Rozmowa na stronie",
        "lead": "Klient",
        "bot": "Asystent",
        "gone": "Ten link nie działa: jest niepełny, starszy niż 90 dni albo rozmowę usunięto.",
    },
    "en": {
        "title": "Conversation on the site",
        "lead": "Visitor",
        "bot": "Assistant",
        "gone": "This link does not work: it is incomplete, older than 90 days, or the "
        "conversation was deleted.",
    },
}


class Transcripts:
    def __init__(
        self, engine: AsyncEngine, config: Config, tokens: Tokens, public_base_url: str
    ) -> None:
        self._engine = engine
        self._config = config
        self._tokens = tokens
        self._base_url = public_base_url.rstrip("/")

    def link(self, conversation_id: UUID, now: datetime) -> str:
        token = self._tokens.sign(str(conversation_id), "staff", ACTION, now)
        return f"{self._base_url}/transcript?token={token}"

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/transcript", self.page)

    async def page(self, request: web.Request) -> web.Response:
        try:
            token = request.query.get("token", "")
            claims = self._tokens.verify(token, ACTION, datetime.now(UTC), LIFETIME)
        except InvalidToken:
            return self._answer([], 400)
        async with self._engine.connect() as tx:
            said = await conversations.transcript(tx, UUID(claims.subject), MOST_MESSAGES)
        return self._answer(said, 200 if said else 404)

    def _answer(self, said: list[tuple[str, str, datetime]], status: int) -> web.Response:
        zone: ZoneInfo = self._config.hours.zone
        lines: list[dict[str, Any]] = [
            {"who": author, "text": text, "at": f"{at.astimezone(zone):%d.%m.%Y %H:%M}"}
            for author, text, at in said
        ]
        language = self._config.staff_language
        page = _PAGE.render(
            lines=lines,
            words=_WORDS[language],
            language=language,
            company=self._config.company.name,
        )
        return web.Response(text=page, status=status, content_type="text/html", headers=_HEADERS)
