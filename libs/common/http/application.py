"""HTTP of every service: request id, problem+json (RFC 9457), strict JSON, access log, metrics."""

import asyncio
import hmac
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from os import urandom
from time import perf_counter
from typing import Annotated, Any, NoReturn, TypeVar
from uuid import UUID

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import istr
from opentelemetry.trace import SpanKind
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
)

from libs.common import beside
from libs.common.plain import plain
from libs.common.process import logs, tracing
from libs.common.process.logs import log
from libs.common.process.metrics import SHARED

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

JSON = "application/json"
MAX_BODY = 256 * 1024
MAX_DEPTH = 32
MOST_FAULTS = 100
MOST_NUMBER = 10**40
MOST_SIGNIFICANT = 17
"""Digits that distinguish any two doubles; a longer fraction would be rounded."""
NUMBER = (
    f"a number may have 40 digits, written without an exponent, and {MOST_SIGNIFICANT} significant "
    "ones if it has a point or an exponent: send it as text"
)
REQUEST_ID = istr("X-Request-ID")
INTERNAL_KEY = "X-Internal-Key"
CALLER = "X-Caller"
CALLER_KEY = "X-Caller-Key"
CLIENT_ADDRESS = "X-Client-Address"
ADDRESS_FROM = "X-Client-Address-From"
ACCEPTED_AT = "X-Accepted-At"
PERSONAL = "X-Personal-Data"
"""`yes`, if the caller may see personal data of events."""
OVER_BUDGET = "X-Over-Budget"
HEALTH_PATH = "/health"

_HEADS = beside.toml(__file__, "heads.toml")
MOST_BYTES: Mapping[bytes, int] = {name.encode(): most for name, most in _HEADS.items()}
_LEAST = min(MOST_BYTES.values())
_REQUEST_ID = web.RequestKey("request_id", str)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_REQUESTS = SHARED.counter("http_requests_total")
_SECONDS = SHARED.histogram("http_request_seconds")


class Model(BaseModel):
    """A request body: unknown fields and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


def in_utc(at: datetime) -> datetime:
    """Convert to UTC: PostgreSQL takes no offset of 16 hours or more, but Python does.

    :raises ValueError: before the year 1 or after 9999
    """
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("before the year 1 or after 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("not a date or time in ISO 8601") from None
    return in_utc(at if at.tzinfo else at.replace(tzinfo=UTC))


Time = Annotated[datetime, BeforeValidator(_time)]
"""Of a query: a date, or a time, which without an offset is in UTC."""


def accepted_at(request: web.Request) -> datetime:
    """Return when the gateway accepted this request; a service may handle it much later."""
    try:
        at = datetime.fromisoformat(request.headers[ACCEPTED_AT])
    except (KeyError, ValueError):
        return datetime.now(UTC)
    return at if at.tzinfo else datetime.now(UTC)


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """An error response, as application/problem+json (RFC 9457)."""

    def __init__(
        self,
        status: int,
        title: str | None = None,
        *,
        detail: str | None = None,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """:param members: further members of the body, for programs"""
        self.status = status
        self.title = title or HTTPStatus(status).phrase
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        super().__init__(self.title)

    def response(self) -> web.Response:
        body: dict[str, Any] = {"type": "about:blank", "title": self.title, "status": self.status}
        body |= self.members
        if self.detail is not None:
            body["detail"] = self.detail
        if self.errors:
            body["errors"] = [{"field": field, "message": text} for field, text in self.errors]
        return web.Response(
            text=json.dumps(body),
            status=self.status,
            headers=self.headers,
            content_type="application/problem+json",
        )


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain).encode


def json_response(data: Any, status: int = 200) -> web.Response:
    return web.Response(text=_encode(data), status=status, content_type=JSON)


def path_id(request: web.Request, what: str) -> UUID:
    """Return the route's `id`.

    :param what: what the id identifies, for the error message
    :raises Problem: 404 it is not a UUID
    """
    try:
        return UUID(request.match_info["id"])
    except ValueError:
        raise Problem(404, detail=f"no such {what}") from None


def there(found: T | None, what: str) -> T:
    """:raises Problem: 404 it is not there"""
    if found is None:
        raise Problem(404, detail=f"no such {what}")
    return found


def media_type(headers: Mapping[str, str]) -> str:
    """Return the Content-Type without its parameters, in lower case; empty without one.

    aiohttp's `content_type` parses them as well, and its `charset` may name a slow codec.
    """
    return headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()


async def parse(request: web.Request, model: type[M], *, max_depth: int = MAX_DEPTH) -> M:
    """Read the body as JSON of this model.

    :raises Problem: 415 another content type, 413 too large, 400 not JSON, 422 each bad field
    """
    if media_type(request.headers) != JSON:
        raise Problem(415, detail=f"the content type must be {JSON}")
    return validate(await request.read(), model, max_depth)


def parse_query(request: web.Request, model: type[M]) -> M:
    """Read the query as JSON, in which each value is a text; raises as `parse` does."""
    return validate(json.dumps(dict(request.query)).encode(), model, whole="query")


def validate(body: bytes, model: type[M], max_depth: int = MAX_DEPTH, whole: str = "body") -> M:
    """Validate a JSON document; raises as `parse` does."""
    check_json(body, max_depth)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        detail = "one or more fields are invalid"
        raise Problem(422, detail=detail, errors=faults(error, whole)) from None


def page(
    rows: Sequence[Any], limit: int, cursor: Callable[[Any], Any],
    shown: Callable[[Any], Any] = lambda row: row._asdict(),
) -> dict[str, Any]:  # fmt: skip
    """Return the body of a list.

    :param rows: one more than `limit`, if there is another page
    """
    some = rows[:limit]
    more = cursor(some[-1]) if len(rows) > limit else None
    return {"items": list(map(shown, some)), "next_cursor": more}


def faults(error: ValidationError, whole: str) -> list[tuple[str, str]]:
    """Return each invalid field with its fault, a hundred at most.

    :param whole: the name of the whole, for a fault of no single field
    """
    return [
        (
            ".".join(str(part) for part in fault["loc"]) or whole,
            fault["msg"].removeprefix("Value error, "),  # added by pydantic
        )
        for fault in error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
    ]


def check_json(body: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON and reject what a database or another parser cannot take.

    :raises Problem: 400 not JSON; 422 NUL, lone surrogate, deep nesting, a name given twice, or a
        number that would not arrive as it was sent
    """
    try:
        data = _decode(body.decode())
    except RecursionError:
        raise Problem(422, detail=f"the JSON is nested deeper than {MAX_DEPTH} levels") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise Problem(400, detail="the body is not valid JSON in UTF-8") from None
    except ValueError:  # Python converts no whole number of more than 4,300 digits
        raise Problem(422, detail=NUMBER) from None
    _check_value(data, "body", max_depth)
    return data


def _not_finite(name: str) -> NoReturn:
    raise Problem(422, detail=f"{name} is not a valid JSON number")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two parsers may pick different values (RFC 8259, section 4).
    data = dict(pairs)
    if len(data) < len(pairs):
        raise Problem(422, detail="an object contains the same name twice")
    return data


def _float(text: str) -> float:
    """Return infinity, which `_check_value` refuses, unless this very number can be passed on.

    PostgreSQL's jsonb writes exponents out: 1e308 would leave it as 309 digits.
    """
    value = float(text)
    if len(text) <= MOST_SIGNIFICANT and 1e-40 < abs(value) < MOST_NUMBER:
        return value
    digits = text.lower().partition("e")[0].replace(".", "").strip("-0")
    fits = 1e-40 < abs(value) < MOST_NUMBER or not digits
    return value if fits and len(digits) <= MOST_SIGNIFICANT else math.inf


_decode = json.JSONDecoder(
    parse_float=_float, parse_constant=_not_finite, object_pairs_hook=_unique_names
).decode


def _check_value(value: Any, field: str, levels: int) -> None:
    if levels < 0:
        raise Problem(422, detail=f"the JSON is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(value, field)
    elif isinstance(value, int | float) and not -MOST_NUMBER < value < MOST_NUMBER:
        raise Problem(422, errors=[(field, NUMBER)])
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name, field)
            _check_value(item, name if field == "body" else f"{field}.{name}", levels - 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_value(item, f"{field}.{index}", levels - 1)


def _check_text(text: str, field: str) -> None:
    if "\0" in text:
        raise Problem(422, errors=[(field, "must not contain a NUL character")])
    if not text.isascii() and _SURROGATE.search(text):
        raise Problem(422, errors=[(field, "must not contain a lone surrogate")])


def route_template(request: web.Request) -> str:
    """Return the route's pattern; the raw path may contain an e-mail address."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


def create_app(*, internal_key: str | None, max_body: int = MAX_BODY) -> web.Application:
    """Create an application; with `internal_key`, everyone else may only call /health."""
    middlewares: list[Middleware] = [_observe(inside=internal_key is not None), _problems]
    if internal_key is not None:
        middlewares.append(_internal(internal_key))
    app = web.Application(client_max_size=max_body, middlewares=middlewares)
    app.on_response_prepare.append(_finish)
    app.router.add_get(HEALTH_PATH, _health)
    return app


async def _finish(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall(hdrs.SERVER, None)
    # Not from the context variable: a response is prepared after the middlewares returned.
    try:
        response.headers[REQUEST_ID] = request[_REQUEST_ID]
    except KeyError:  # aiohttp has refused its `Expect`, before the middlewares
        response.headers[REQUEST_ID] = urandom(16).hex()


async def _health(_: web.Request) -> web.Response:
    return json_response({"status": "healthy"})


@cache  # of the closed sets of labels
def _answered(method: str, route: str, status: int) -> tuple[Callable[[float], None], str]:
    """Return the function that counts it, and the fields of the log line."""
    fields = {"method": method, "route": route, "status": status}
    return _REQUESTS.labels(method, route, status).inc, json.dumps(fields)[1:-1]


@cache
def _seconds(route: str) -> Callable[[float], None]:
    return _SECONDS.labels(route).observe


def _too_long(raw: Iterable[tuple[bytes, bytes]]) -> Problem | None:
    for name, value in raw:
        if len(value) > _LEAST and len(value) > MOST_BYTES.get(name.lower(), len(value)):
            said = f"{name.decode()} may have {MOST_BYTES[name.lower()]} bytes at most"
            return Problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail=said)
    return None


def _observe(*, inside: bool) -> Middleware:
    """:param inside: only the gateway calls this service, so its trace is continued"""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(REQUEST_ID, "")
        request_id = given if _SANE_ID.fullmatch(given) else urandom(16).hex()
        request[_REQUEST_ID] = request_id
        token = logs.request_id.set(request_id)
        route = route_template(request)
        method = request.method if request.method in hdrs.METH_ALL else "other"
        start = perf_counter()
        sender = request.headers if inside else None
        if route == HEALTH_PATH:  # polled every few seconds
            traced = tracing.UNTRACED
        else:
            traced = tracing.span(SpanKind.SERVER, f"{method} {route}", sender)
        try:
            with traced as span:
                refused = _too_long(request.raw_headers)  # before any middleware reads one
                response = refused.response() if refused else await handler(request)
                span.set_attribute("http.response.status_code", response.status)
            seconds = perf_counter() - start
            count, fields = _answered(method, route, response.status)
            count(1)
            _seconds(route)(seconds)
            if route != HEALTH_PATH:
                fields += f', "seconds": {seconds:.4f}, "request_id": "{request_id}"'
                logs.info(__name__, "http.answered", fields)
            return response
        finally:
            logs.request_id.reset(token)

    return observe


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        kept = {str(name): error.headers[name] for name in (hdrs.ALLOW,) if name in error.headers}
        return Problem(error.status, error.reason, headers=kept).response()
    except Exception:
        log.exception("http.failed", route=route_template(request))
        return Problem(500, detail="internal error; the log has it under X-Request-ID").response()


def only(role: str, handler: Handler, *, or_role: str | None = None) -> Handler:
    """Reject calls that the gateway did not admit under one of these roles."""

    async def checked(request: web.Request) -> web.StreamResponse:
        if request.headers.get(CALLER) not in {role, or_role or role}:
            raise Problem(401, detail=f"this requires the {role} key")
        return await handler(request)

    return checked


def until_stop(app: web.Application, handler: Handler) -> Handler:
    """Cancel this handler's requests when the application stops, which would wait for them."""
    running: set[asyncio.Task[Any]] = set()

    async def run(request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine called this
        running.add(task)
        try:
            return await handler(request)
        finally:
            running.discard(task)

    async def stop(_: web.Application) -> None:
        for task in running:
            task.cancel()

    app.on_shutdown.append(stop)
    return run


def unavailable_when(transient: Callable[[BaseException], bool]) -> Middleware:
    """Answer 503 if a handler failed only because its database is unavailable."""

    @web.middleware
    async def unavailable(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            if not transient(error):
                raise
            log.warning("http.database_unavailable", error=str(getattr(error, "orig", error)))
            raise Problem(
                503, detail="the database is unavailable; try again", headers={"Retry-After": "2"}
            ) from error

    return unavailable


def _internal(key: str) -> Middleware:
    expected = key.encode()

    @web.middleware
    async def internal(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(INTERNAL_KEY, "").encode("utf-8", "surrogateescape")
        if request.path != HEALTH_PATH and not hmac.compare_digest(given, expected):
            raise Problem(401, detail="call this service through the gateway")
        return await handler(request)

    return internal
