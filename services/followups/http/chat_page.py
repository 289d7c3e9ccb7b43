"""The chat without a script: a page for each turn, whose chips are submit buttons.

A page sent twice is one turn: it says which reply it shows, and only the last one is answered.
"""

import re
import secrets
from collections.abc import Mapping
from typing import Any

import jinja2
from aiohttp import web
from pydantic import ValidationError

from libs.common import beside
from libs.common.http import plain_form
from libs.domain.company import style
from services.followups.config import Config
from services.followups.dialogue.state import SAID_LENGTH, State
from services.followups.dialogue.taps import Unfit
from services.followups.http.chat import ChatMessage, ChatRoutes
from services.followups.reading.text import readable

_PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    beside.text(__file__, ".html")
)
_WORDS = beside.toml(__file__)


class ChatPage:
    def __init__(self, chat: ChatRoutes, config: Config) -> None:
        self._chat = chat
        self._config = config

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/chat", self.begin)
        app.router.add_post("/chat", self.go_on)

    async def begin(self, request: web.Request) -> web.Response:
        language = self._config.language_of(request.query.get("language"))
        opening = self._chat.opening_in(language) | {"said": "", "card": [], "replies": 0}
        return self._show(language, secrets.token_urlsafe(16), opening)

    async def go_on(self, request: web.Request) -> web.Response:
        given = {
            name: text.replace("\r\n", "\n")  # as `maxlength` counts them
            for name, text in (await plain_form.read(request)).items()
            if text
        }
        session = given.get("session", "")
        ours = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
        if not (ours and re.fullmatch(r"[A-Za-z0-9_-]{22}", session)):  # else others may know it
            session = secrets.token_urlsafe(16)
        language = self._config.language_of(given.get("language"))
        about = {"session_id": session, "language": language, "greeted": True}
        typed = given.get("message") or given.get("number") or given.get("value") or ""
        fault = False
        try:
            body = ChatMessage.model_validate(about | _said(given))
            answer, shown = await self._chat.answer(request, body, given.get("replies"))
        except (ValidationError, Unfit):
            body, fault = ChatMessage.model_validate(about | {"message": "-"}), True
            answer, shown = await self._chat.answer(request, body, "")  # of no reply: not taken
        wording = (shown["ask"] or {}).get("wording", {}).get("text", "")
        shown |= {
            "reply": shown["reply"].replace(wording, "").strip(),
            "said": answer.said,
            "replies": answer.state.replies,
        }
        is_taken = answer.said or _is_noted(body, answer.state)
        return self._show(language, session, shown, fault=fault, typed="" if is_taken else typed)

    def _show(
        self,
        language: str,
        session: str,
        shown: dict[str, Any],
        *,
        fault: bool = False,
        typed: str = "",
    ) -> web.Response:
        company = self._config.company
        page = _PAGE.render(
            shown,
            language=language,
            words=_WORDS[language],
            company=company,
            style=style(company.accent),
            session=session,
            fault=fault,
            typed=typed,
        )
        return web.Response(text=page, status=422 if fault else 200, content_type="text/html")


def _said(given: Mapping[str, str]) -> dict[str, Any]:
    if "ask" not in given:
        return {"message": given.get("message", "")}
    tap: dict[str, Any] = {
        name: given[name] for name in ("ask", "choice", "value", "wording") if name in given
    }
    if number := given.get("number"):
        digits = "".join(number.split())
        # A budget of `60` or `60.000` and one in words are read as a message is.
        plain = r"\d{4,}" if tap["ask"].startswith("budget") else r"\d+([.,]\d\d?)?"
        if not re.fullmatch(plain, digits, re.ASCII):
            return {"message": number}
        tap["value"] = float(digits.replace(",", "."))
    return {"tap": tap}


def _is_noted(body: ChatMessage, state: State) -> bool:
    """Return whether it is what was said last: the page was only loaded once more."""
    if body.tap is None:
        return readable(str(body.message))[:SAID_LENGTH] == state.last_said
    return body.tap.value is not None and body.tap.value[1] in state.facts
