"""Forwarding to the service that owns a route.

A request's body (256 KiB at most) is read before the owner is asked, so that a slow client holds
none of the owner's connections; the answer is streamed, and so is the one body that may be larger,
an import's. What a client may send on is an allow-list:
neither hop-by-hop headers nor keys nor forged internal headers get past this module.
"""

from collections.abc import AsyncIterable, Mapping

from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict, istr

from libs.common import logs
from libs.common.http_client import Answer, Broken
from libs.common.web import ADDRESS_FROM, CALLER, CLIENT_ADDRESS, REQUEST_ID
from services.gateway.clients import Client, Role
from services.gateway.upstream import Upstream

log = logs.get_logger(__name__)

FORWARDED = (
    hdrs.ACCEPT,
    hdrs.ACCEPT_LANGUAGE,
    hdrs.CONTENT_TYPE,
    hdrs.USER_AGENT,
    istr("Idempotency-Key"),
)
IMPORT_SECONDS = 300.0
"""Sockets hold some megabytes, so an owner may have all of a file long before it has written it."""
OPERATOR = istr("X-Operator")
HOP_BY_HOP = frozenset(
    name.lower()
    for name in (
        hdrs.CONNECTION,
        hdrs.KEEP_ALIVE,
        hdrs.PROXY_AUTHENTICATE,
        hdrs.PROXY_AUTHORIZATION,
        hdrs.TE,
        hdrs.TRAILER,
        hdrs.TRANSFER_ENCODING,
        hdrs.UPGRADE,
    )
)
OURS = frozenset(name.lower() for name in (hdrs.CONTENT_LENGTH, hdrs.DATE, hdrs.SERVER, REQUEST_ID))
DROPPED = HOP_BY_HOP | OURS


def outgoing_headers(request: web.Request, client: Client, request_id: str) -> dict[str, str]:
    given = request.headers
    headers: dict[str, str] = {}
    for name in FORWARDED:
        if (value := given.get(name)) is not None:
            headers[name] = value
    headers[REQUEST_ID] = request_id
    headers[CLIENT_ADDRESS] = client.address
    headers[ADDRESS_FROM] = client.address_from
    headers[CALLER] = client.role
    if client.role is Role.ADMIN and OPERATOR in request.headers:
        headers[OPERATOR] = request.headers[OPERATOR]
    return headers


def answer_headers(answer: Answer) -> CIMultiDict[str]:
    """Return the end-to-end headers of an answer (RFC 9110, section 7.6.1)."""
    dropped = DROPPED
    if hdrs.CONNECTION in answer.headers:
        named = ",".join(answer.headers.getall(hdrs.CONNECTION)).lower().split(",")
        dropped = DROPPED | {name.strip() for name in named}
    return CIMultiDict(
        [(name, value) for name, value in answer.headers.items() if name.lower() not in dropped]
    )


async def forward(
    request: web.Request,
    upstream: Upstream,
    headers: Mapping[str, str],
    body: bytes | AsyncIterable[bytes] | None,
) -> web.StreamResponse:
    """Send the request on, path and query unchanged, and its answer back."""
    timeout = None if isinstance(body, bytes | None) else IMPORT_SECONDS
    method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
    path = request.rel_url.raw_path_qs
    async with upstream.ask(method, path, headers=headers, body=body, timeout=timeout) as answer:
        if answer.complete:
            return web.Response(
                status=answer.status, headers=answer_headers(answer), body=await answer.read()
            )
        return await _stream(request, answer)


async def _stream(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer_headers(answer))
    if (length := answer.headers.get(hdrs.CONTENT_LENGTH)) is not None:
        response.content_length = int(length)
    elif request.version < HttpVersion11:  # the end of the connection is the body's
        response.force_close()
    try:
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:  # aiohttp would write what is given to it
            return response
        async for part in answer.parts():
            await response.write(part)
        await response.write_eof()
    except (Broken, TimeoutError, OSError) as error:
        # The status has left: only a cut connection tells the client that the rest is missing.
        log.warning("proxy.cut", error=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
    return response
