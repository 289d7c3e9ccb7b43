"""The page behind a personal link. Link scanners fetch it: GET and HEAD change nothing."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import jinja2
from aiohttp import web
from markupsafe import Markup

from libs.common import beside
from libs.common.http import plain_form
from libs.domain import email_address, phone_number
from services.alerts.cases.answers import Answers, Refusal
from services.alerts.config.texts import label, language_of, line, refusal, texts
from services.alerts.rules.case import (
    TOKEN_BYTES,
    Answer,
    Choice,
    Refused,
    State,
    Verb,
    Via,
    hashed,
    offered,
)
from services.alerts.store.cases import cases

_MINE = (Verb.WON, Verb.LOST, Verb.NOT_A_LEAD, Verb.REMIND, Verb.RELEASE)
_CHOICES = {Verb.LATER: Choice.HOUR, Verb.REMIND: Choice.HALF_HOUR}
_CONTACT = ("name", "phone", "email", "city", "summary", "text", "transcript_url")
_JOB = ("summary", "city")
"""What a lead is about, for everyone with a link: without who it is."""
_STYLE = beside.text(__file__, "case_page.css")
_PAGE = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
).from_string(beside.text(__file__, "case_page.html"))
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # whoever has the URL may act
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
}


@dataclass(frozen=True, eq=False)
class CasePages:
    answers: Answers
    accent: str
    """A style sheet with the company's accent."""
    company: str = ""

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/a/{token}", self.show)
        app.router.add_post("/a/{token}", self.press)

    async def show(self, request: web.Request) -> web.Response:
        row = await self._case(request)
        return self._gone() if row is None else self._page(row)

    async def press(self, request: web.Request) -> web.Response:
        """Answer as the link's person; the form's nonce is the key, so a repeat has no effect."""
        row = await self._case(request)
        answer = await self._answer(request, row) if row is not None else None
        if row is None or answer is None:
            return self._gone()
        result = await self.answers.answer(row.alert_id, answer)
        after = await self._case(request)
        if after is None:
            return self._gone()
        if not isinstance(result, Refusal):
            return self._page(after)
        if result.why in {Refused.UNKNOWN, Refused.KEY_USED}:
            return self._gone()
        note = refusal(result.why, result.owner, language_of(after))
        return self._page(after, note, 422 if result.why is Refused.TOO_LATE else 409)

    async def _answer(self, request: web.Request, row: Any) -> Answer | None:
        form = await plain_form.read(request)
        try:
            verb = Verb(str(form.get("answer")))
            nonce = UUID(str(form.get("nonce")))
            generation = min(int(str(form.get("generation"))[:9]), row.generation)
        except ValueError:
            return None
        if verb not in {*offered(State.OPEN, None), *_MINE}:
            return None
        return Answer(
            verb,
            row.person,
            self.answers.rules.people[row.person].name,
            Via.LINK,
            key=f"link {nonce} {verb}",
            choice=_CHOICES.get(verb),
            generation=generation,
        )

    async def _case(self, request: web.Request) -> Any | None:
        """Return the link's case; None when the link, its case or its person is gone."""
        token = request.match_info["token"]
        if len(token) > 2 * TOKEN_BYTES:
            return None
        row = (
            await cases.run.alone(self.answers.engine, "of_link", hash=hashed(token))
        ).one_or_none()
        if row is None or row.reason == "erased" or row.person not in self.answers.rules.people:
            return None
        return row

    def _page(self, row: Any, note: str = "", status: int = 200) -> web.Response:
        rules, language = self.answers.rules, language_of(row)
        words = texts("page", language)
        mine = row.state == State.ANSWERED and row.owner == row.person
        # Only the owner may close it; everyone else sees who has it.
        verbs = () if row.state == State.ANSWERED else offered(State(row.state), None)
        buttons = _MINE if mine else verbs
        return self._html(
            status,
            language=language,
            title=line(row, rules.hours_of(row.hours)),
            note=note,
            details=list(_details(row.payload or {}, words, _CONTACT if mine else _JOB)),
            buttons=[(verb.value, words.get(verb, label(verb, language))) for verb in buttons],
            nonce=uuid4(),
            generation=row.generation,
            words=words,
            mine=mine,
        )

    def _gone(self) -> web.Response:
        title = " · ".join(texts("page", language)["gone"] for language in ("pl", "en"))
        nothing: dict[str, Any] = {"note": "", "details": [], "buttons": [], "mine": False}
        return self._html(410, language="pl", title=title, **nothing)

    def _html(self, status: int, **values: Any) -> web.Response:
        style = self.accent + _STYLE
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; "
            "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        )
        text = _PAGE.render(style=Markup(style), company=self.company, **values)  # noqa: S704 - files of ours
        headers = {**_HEADERS, "Content-Security-Policy": policy}
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def _details(
    payload: Mapping[str, Any], words: Mapping[str, str], keys: Iterable[str]
) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield each as its key, its name, the text, and a link where it is one."""
    for key in keys:
        value = payload.get(key)
        if isinstance(value, str) and value:
            yield key, words[key], value, _link(key, value)


def _link(key: str, value: str) -> str | None:
    """Link a text that is just a phone number or address; a stranger's other text gets no link."""
    try:
        if key == "phone":
            return f"tel:{phone_number.normalise(value)}"
        if key == "email":
            return f"mailto:{quote(email_address.normalise(value), safe='@')}"
    except ValueError:
        pass
    return None
