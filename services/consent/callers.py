"""What a request says of who sent it, as the gateway wrote it there; and of whom it asks."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator, Field

from libs.common.addresses import MalformedAddress, normalise
from libs.common.tokens import Claims, InvalidToken, Tokens
from libs.common.web import ADDRESS_FROM, CALLER, CLIENT_ADDRESS, Problem
from services.consent.consent import LANGUAGES, preferred_language
from services.consent.trail import Origin

UNSUBSCRIBE_TOKEN = "unsubscribe"  # noqa: S105 - the action that a mailed link allows
ERASURE_TOKEN = "erasure"  # noqa: S105 - likewise
OPT_IN_TOKEN = "opt-in"  # noqa: S105 - likewise


def _address(text: str) -> str:
    normalise(text)
    return text


Email = Annotated[str, Field(max_length=254), AfterValidator(_address)]


def origin(request: web.Request) -> Origin:
    headers = request.headers
    return Origin(headers.get(CLIENT_ADDRESS), headers.get("User-Agent"), headers.get(ADDRESS_FROM))


def operator(request: web.Request) -> dict[str, str]:
    operator = request.headers.get("X-Operator")
    return {"operator": operator[:200]} if operator else {}


def trusted(request: web.Request) -> bool:
    return request.headers.get(CALLER) in {"service", "admin"}


def admin(request: web.Request) -> None:
    if request.headers.get(CALLER) != "admin":
        raise Problem(401, detail="this needs the admin key")


def language(request: web.Request) -> str:
    chosen = request.query.get("lang", "")
    if chosen in LANGUAGES:
        return chosen
    return preferred_language(request.headers.get("Accept-Language", ""))


def path_address(request: web.Request) -> str:
    email = request.match_info["email"]
    try:
        normalise(email)
    except MalformedAddress as error:
        raise Problem(422, errors=[("email", str(error))]) from None
    return email


def claims_of(
    tokens: Tokens,
    request: web.Request,
    action: str = UNSUBSCRIBE_TOKEN,
    max_age: timedelta | None = None,
) -> Claims | None:
    token = request.query.get("token", "")
    try:
        return tokens.verify(token, action, datetime.now(UTC), max_age)
    except InvalidToken:
        return None
