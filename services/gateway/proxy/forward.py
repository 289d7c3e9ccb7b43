"""Forwarding to the service behind a route.

A body of 256 KiB at most is read before the upstream is asked: a slow client then uses none of its
connections. Responses are streamed, and so are the bodies of imports. Request headers pass by an
allow-list: hop-by-hop headers, keys and forged internal headers do not get past this module.
"""

from collections.abc import AsyncIterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

from aiohttp import HttpVersion11, hdrs, web
from multidict import istr

from libs.common.http import application
from libs.common.http.client import Broken, Response
from libs.common.process.logs import log
from libs.domain.scopes import KEY, PERSON
from services.gateway.door.clients import Client, Role
from services.gateway.proxy.upstream import Upstream

FORWARDED = (
    hdrs.ACCEPT,
    hdrs.ACCEPT_LANGUAGE,
    hdrs.CONTENT_TYPE,
    hdrs.USER_AGENT,
    istr("Idempotency-Key"),
    istr("Sec-Fetch-Site"),
)
IMPORT_SECONDS = 300.0
"""Socket buffers hold megabytes: an upstream may receive a whole file long before it is stored."""
OPERATOR = istr("X-Operator")
OPERATOR_ROLES = istr("X-Operator-Roles")
PROVEN = (PERSON, KEY)
DROPPED = frozenset(
    {
        # Hop by hop (RFC 9110, section 7.6.1); then what this gateway says itself.
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade"),
        *("content-length", "date", "server", application.REQUEST_ID.lower()),
    }
)


def outgoing_headers(request: web.Request, client: Client, request_id: str) -> dict[str, str]:
    given = request.headers
    headers: dict[str, str] = {}
    for name in FORWARDED:
        if (value := given.get(name)) is not None:
            headers[name] = readable(value)
    headers[application.REQUEST_ID] = request_id
    headers[application.CLIENT_ADDRESS] = client.ip
    headers[application.ADDRESS_FROM] = client.ip_source
    headers[application.CALLER] = client.role
    if client.key is not None:
        headers[application.CALLER_KEY] = client.key
    headers[application.ACCEPTED_AT] = datetime.now(UTC).isoformat()
    if (operator := operator_of(request, client)) is not None:
        headers[OPERATOR] = operator
    if client.roles:
        headers[OPERATOR_ROLES] = client.roles
    if client.sees_persons:
        headers[application.PERSONAL] = "yes"
    return headers


def operator_of(request: web.Request, client: Client) -> str | None:
    """Return who acts: as proven, or as the holder of ADMIN_API_KEY claims.

    A claim that reads like a proof is dropped: the records tell one from the other by it.
    """
    if client.operator is not None or client.role is not Role.ADMIN:
        return client.operator
    claimed = readable(request.headers.get(OPERATOR, "")).strip()
    return None if claimed.startswith(PROVEN) else claimed[:200] or None


def readable(value: str) -> str:
    """Decode invalid UTF-8 as ISO 8859-1: JSON and databases take no lone surrogates."""
    if value.isascii():
        return value
    sent = value.encode("utf-8", "surrogateescape")
    try:
        return sent.decode()
    except UnicodeDecodeError:
        return sent.decode("latin-1")


def answer_headers(answer: Response) -> list[tuple[str, str]]:
    """Return the end-to-end headers of a response (RFC 9110, section 7.6.1)."""
    dropped = DROPPED
    if (connection := answer.headers.getall(hdrs.CONNECTION, None)) is not None:
        dropped = _dropped(",".join(connection))
    return [(name, value) for name, value in answer.headers.items() if name.lower() not in dropped]


@lru_cache(maxsize=64)
def _dropped(connection: str) -> frozenset[str]:
    return DROPPED | {name.strip() for name in connection.lower().split(",")}


async def forward(
    request: web.Request,
    upstream: Upstream,
    headers: Mapping[str, str],
    body: bytes | AsyncIterable[bytes] | None,
) -> web.StreamResponse:
    """Forward the request with its path and query unchanged, and return the response."""
    timeout = None if body is None or isinstance(body, bytes) else IMPORT_SECONDS
    method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
    path = request.rel_url.raw_path_qs
    async with upstream.ask(method, path, headers=headers, body=body, timeout=timeout) as answer:
        if answer.complete:
            return web.Response(
                status=answer.status, headers=answer_headers(answer), body=await answer.read()
            )
        return await _stream(request, answer)


async def _stream(request: web.Request, answer: Response) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer_headers(answer))
    if (length := answer.headers.get(hdrs.CONTENT_LENGTH)) is not None:
        response.content_length = int(length)
    elif request.version < HttpVersion11:  # the body ends with the connection
        response.force_close()
    try:
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:  # aiohttp would write the body
            return response
        async for part in answer.parts():
            await response.write(part)
        await response.write_eof()
    except (Broken, TimeoutError, OSError) as error:
        # The status was sent: only a broken connection shows the client that the rest is missing.
        if not isinstance(error, ConnectionError):  # else the client has left
            log.warning("proxy.cut", error=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
    return response
