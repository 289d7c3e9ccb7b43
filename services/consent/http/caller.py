"""Reads the caller and the data subject of a request; also answers withdrawals."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.http.application import (
    ADDRESS_FROM,
    CALLER,
    CLIENT_ADDRESS,
    OVER_BUDGET,
    Model,
    Problem,
    accepted_at,
    json_response,
)
from libs.domain import acts_outbox
from libs.domain.acts import DONE
from libs.domain.company import Wording
from libs.domain.email_address import normalise
from libs.domain.phone_number import Phone
from libs.domain.signed_links import Claims, InvalidToken, Tokens
from services.consent.changes import Note
from services.consent.recovery.withdrawals import Answer
from services.consent.rules import (
    LANGUAGES,
    Action,
    Agreement,
    Subject,
    WithdrawalResult,
    preferred_language,
)
from services.consent.store.data_subjects import SubjectRow, parse_subject
from services.consent.trail.chain import Origin

UNKNOWN = "unknown"
"""In the record of acts: someone whom consent does not know."""


def _is_email(text: str) -> str:
    normalise(text)
    return text


Email = Annotated[str, Field(max_length=254), AfterValidator(_is_email)]
"""Not normalised: the trail and the answer show it as it was given."""


class Named(Model):
    """A person, by exactly one of the two."""

    email: Email | None = None
    phone: Phone | None = None

    @property
    def given(self) -> str:
        if (given := self.email or self.phone) is None or (self.email and self.phone):
            raise Problem(422, errors=[("email", "give either email or phone")])
        return given


def origin(request: web.Request) -> Origin:
    headers = request.headers
    return Origin(headers.get(CLIENT_ADDRESS), headers.get("User-Agent"), headers.get(ADDRESS_FROM))


def agreed(request: web.Request, wording: Wording, source: str) -> Agreement:
    """Return the agreement to a published wording that a request brings."""
    at = accepted_at(request)
    return Agreement(wording.text, wording.language, source, at, version=wording.version)


def operator(request: web.Request) -> dict[str, str]:
    operator = request.headers.get("X-Operator")
    return {"operator": operator[:200]} if operator else {}


def note_of(request: web.Request, action: str, outcome: str = DONE) -> Note:
    """Record who acts on a data subject, in the transaction that does it."""

    async def record(tx: AsyncConnection, subject: UUID | None) -> None:
        ref = str(subject) if subject is not None else UNKNOWN
        await acts_outbox.record(tx, request, action, "person", ref, outcome=outcome)

    return record


async def look(tx: AsyncConnection, request: web.Request, row: SubjectRow | None) -> None:
    seen = [row.id if row is not None else UNKNOWN]
    await acts_outbox.look(tx, request.headers, "person.look", "person", seen)


def trusted(request: web.Request) -> bool:
    return request.headers.get(CALLER) in {"service", "admin"}


def over_budget(request: web.Request) -> bool:
    """Return whether callers without a key have used up their common budget of mails."""
    return OVER_BUDGET in request.headers


def language(request: web.Request, chosen: str | None = None) -> str:
    """Return the language of the page or mail: from the body or the URL, else the browser's."""
    if chosen:
        return preferred_language(chosen)
    chosen = request.query.get("lang", "")
    if chosen in LANGUAGES:
        return chosen
    return preferred_language(request.headers.get("Accept-Language", ""))


def path_subject(request: web.Request, *, by_phone: bool = True) -> tuple[str, Subject]:
    """Return whom the path names, as it was given and as it is stored."""
    given = request.match_info["email"]
    try:
        return given, parse_subject(given) if by_phone else Subject(normalise(given))
    except ValueError as error:
        raise Problem(422, errors=[("email", str(error))]) from None


def claims_of(
    tokens: Tokens,
    request: web.Request,
    action: str = Action.UNSUBSCRIBE,
    max_age: timedelta | None = None,
) -> Claims | None:
    token = request.query.get("token", "")
    try:
        return tokens.verify(token, action, datetime.now(UTC), max_age)
    except InvalidToken:
        return None


STATUS = {
    WithdrawalResult.DONE: 200,
    WithdrawalResult.IN_FLIGHT: 202,
    WithdrawalResult.SUPERSEDED: 409,
    WithdrawalResult.RESTRICTED: 409,
}


def withdrawal_response(body: dict[str, Any], answer: Answer) -> web.Response:
    if answer.result is WithdrawalResult.SUPERSEDED:
        raise Problem(
            409,
            detail="a newer consent was recorded in the meantime; repeat the request",
        )
    if answer.result is WithdrawalResult.RESTRICTED:
        raise Problem(409, detail="withdrawn; the processing is restricted: lift that, then erase")
    if answer.result is WithdrawalResult.IN_FLIGHT:
        body |= {"unsubscribed": True, "in_flight": answer.in_flight}
    return json_response(body, status=STATUS[answer.result])
