"""HTTP for every service: request id, problem+json (RFC 9457), strict JSON, access log, metrics."""

import hmac
import json
import math
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from http import HTTPStatus
from time import perf_counter
from typing import Any, NoReturn, TypeVar

import prometheus_client
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import istr
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ConfigDict, ValidationError

from libs.common import logs, tracing

M = TypeVar("M", bound=BaseModel)
log = logs.get_logger(__name__)

MAX_BODY = 256 * 1024
MAX_DEPTH = 32
REQUEST_ID = istr("X-Request-ID")
INTERNAL_KEY = "X-Internal-Key"
CALLER = "X-Caller"
CLIENT_ADDRESS = "X-Client-Address"
ADDRESS_FROM = "X-Client-Address-From"
HEALTH_PATH = "/health"

_REQUEST_ID = web.RequestKey("request_id", str)
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_REQUESTS = prometheus_client.Counter(
    "http_requests_total", "Requests answered.", ["method", "route", "status"]
)
_SECONDS = prometheus_client.Histogram(
    "http_request_seconds", "Time to answer, by route template.", ["route"]
)


class Model(BaseModel):
    """A request body: unknown fields and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """An answer that is an error, as application/problem+json (RFC 9457)."""

    def __init__(
        self,
        status: int,
        title: str | None = None,
        *,
        detail: str | None = None,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.title = title or HTTPStatus(status).phrase
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        super().__init__(self.title)

    def response(self) -> web.Response:
        body: dict[str, Any] = {"type": "about:blank", "title": self.title, "status": self.status}
        if self.detail is not None:
            body["detail"] = self.detail
        if self.errors:
            body["errors"] = [{"field": field, "message": text} for field, text in self.errors]
        return web.json_response(
            body,
            status=self.status,
            headers=self.headers,
            content_type="application/problem+json",
        )


def json_response(
    data: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        text=json.dumps(data, ensure_ascii=False, allow_nan=False, default=str),
        status=status,
        headers=headers,
        content_type="application/json",
    )


async def parse(request: web.Request, model: type[M]) -> M:
    """Read the body as JSON of this shape, or answer what is wrong with it.

    :raises Problem: 415 another content type, 413 too large, 400 not JSON, 422 each bad field
    """
    if request.content_type != "application/json":
        raise Problem(415, detail="send application/json")
    return validate(await request.read(), model)


def validate(body: bytes, model: type[M]) -> M:
    """Check one JSON document against its shape; see `parse` for what it raises."""
    check_json(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Problem(
            422,
            detail="one or more fields are at fault",
            errors=[
                (
                    ".".join(str(part) for part in fault["loc"]) or "body",
                    fault["msg"].removeprefix("Value error, "),  # pydantic's words, not ours
                )
                for fault in error.errors(include_url=False, include_input=False)
            ],
        ) from None


def check_json(body: bytes) -> Any:
    """Parse JSON and refuse what a database or the next parser would choke on.

    :raises Problem: 400 not JSON; 422 NUL, lone surrogate, non-finite number, deep nesting
        or a name given twice
    """
    try:
        data = json.loads(
            body.decode(), parse_constant=_not_finite, object_pairs_hook=_unique_names
        )
    except RecursionError:
        raise Problem(422, detail=f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:
        raise Problem(400, detail="the body is not valid JSON in UTF-8") from None
    _check_value(data, "body", 0)
    return data


def _not_finite(name: str) -> NoReturn:
    raise Problem(422, detail=f"{name} is not a number that JSON knows")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two parsers may each pick another one of the two values: refuse (RFC 8259, section 4).
    data = dict(pairs)
    if len(data) < len(pairs):
        raise Problem(422, detail="an object has the same name twice")
    return data


def _check_value(value: Any, field: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Problem(422, detail=f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        _check_text(value, field)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Problem(422, errors=[(field, "the number is too large")])
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name, field)
            _check_value(item, name if field == "body" else f"{field}.{name}", depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_value(item, f"{field}.{index}", depth + 1)


def _check_text(text: str, field: str) -> None:
    if "\0" in text:
        raise Problem(422, errors=[(field, "a NUL byte is not allowed")])
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise Problem(422, errors=[(field, "a lone surrogate is not a character")])


def route_template(request: web.Request) -> str:
    """Return the route's pattern, never the raw path: that may carry an address."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


def create_app(*, internal_key: str | None, max_body: int = MAX_BODY) -> web.Application:
    """Make an application; with `internal_key` set, only the gateway may call it (but /health)."""
    middlewares: list[Middleware] = [_observe(inside=internal_key is not None), _problems]
    if internal_key is not None:
        middlewares.append(_internal(internal_key))
    app = web.Application(client_max_size=max_body, middlewares=middlewares)
    app.on_response_prepare.append(_name_request)
    app.router.add_get(HEALTH_PATH, _health)
    return app


async def _name_request(request: web.Request, response: web.StreamResponse) -> None:
    # Not from the context variable: a response is prepared after the middlewares returned.
    response.headers[REQUEST_ID] = request[_REQUEST_ID]


async def _health(_: web.Request) -> web.Response:
    return json_response({"status": "healthy"})


@cache  # by what labels may be
def _answered(method: str, route: str, status: int) -> tuple[prometheus_client.Counter, str]:
    """Return what counts it, and its part of the log line."""
    fields = {"method": method, "route": route, "status": status}
    return _REQUESTS.labels(method, route, status), json.dumps(fields)[1:-1]


@cache
def _seconds(route: str) -> prometheus_client.Histogram:
    return _SECONDS.labels(route)


def _observe(*, inside: bool) -> Middleware:
    """:param inside: only the gateway calls here, whose trace goes on; anybody else's does not"""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(REQUEST_ID, "")
        request_id = given if _SANE_ID.fullmatch(given) else secrets.token_hex(16)
        request[_REQUEST_ID] = request_id
        token = logs.request_id.set(request_id)
        route = route_template(request)
        method = request.method if request.method in hdrs.METH_ALL else "other"
        start = perf_counter()
        sender = request.headers if inside else None
        if route == HEALTH_PATH:  # asked each few seconds for as long as the process lives
            traced = tracing.UNTRACED
        else:
            traced = tracing.span(SpanKind.SERVER, f"{method} {route}", sender)
        try:
            with traced as span:
                response = await handler(request)
                span.set_attribute("http.response.status_code", response.status)
            seconds = perf_counter() - start
            counter, fields = _answered(method, route, response.status)
            counter.inc()
            _seconds(route).observe(seconds)
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
        return Problem(
            500, detail="the request failed on our side; its id is in the log"
        ).response()


def unavailable_when(away: Callable[[BaseException], bool]) -> Middleware:
    """Answer 503 where a handler failed only because its database is away."""

    @web.middleware
    async def unavailable(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            if not away(error):
                raise
            raise Problem(
                503, detail="the database is away; try again", headers={"Retry-After": "2"}
            ) from error

    return unavailable


def _internal(key: str) -> Middleware:
    expected = key.encode()

    @web.middleware
    async def internal(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(INTERNAL_KEY, "").encode("utf-8", "surrogateescape")
        if request.path != HEALTH_PATH and not hmac.compare_digest(given, expected):
            raise Problem(401, detail="services are reached through the gateway only")
        return await handler(request)

    return internal
