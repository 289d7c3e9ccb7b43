"""Request bodies: bounds on the size and time of each, and on the memory of all together.

A body may take 20 s to arrive and then wait for its service: 10,000 connections with 256 KiB each
would hold 2.5 GB. The first 4 KiB of each body are not counted, so a full budget rejects large
bodies only. Callers without a key share half of it, so they cannot lock out the company's programs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import hdrs, web

from libs.common.http.application import MAX_BODY, Problem
from services.gateway import metrics
from services.gateway.door.access import CONTEXT, reads_polish
from services.gateway.door.clients import Role

BODY_SECONDS = 20.0
FREE = 4 * 1024
MOST = 64 * 2**20
RETRY_AFTER = 5
_HELD = web.RequestKey("held", int)


class BodyBudget:
    """Reads bodies, and counts how much of them this process holds.

    The copy for the upstream is not counted: memory grows by twice the bound at most.
    """

    def __init__(self, most: int = MOST) -> None:
        """:param most: bytes beyond the first 4 KiB of each; half for callers without a key"""
        self.held = 0
        self._most = most

    async def read(self, request: web.Request) -> bytes:
        """Return the whole body. It is counted until the request has its response.

        :raises Problem: 413 too large, 503 no room for it, 501 a coding other than chunked,
            408 too slow, 400 cut off or not what its headers say
        """
        length = request.content_length or 0
        if length > MAX_BODY:
            raise _too_large()
        if length > FREE:
            self._check_room(request, length - FREE)
        await accept_body(request)
        content = request.content
        if content.is_eof() and content.exception() is None:  # it has arrived completely
            body = content.read_nowait()
            self._hold(request, len(body))
            return body
        with _faults():
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read_on(request)

    async def _read_on(self, request: web.Request) -> bytes:
        # Not request.read(), which keeps the body while the connection is idle afterwards.
        body = bytearray()
        while part := await request.content.readany():
            body += part
            self._hold(request, len(body))
        return bytes(body)

    def _hold(self, request: web.Request, size: int) -> None:
        """Count what has arrived, until the request's task ends, however; each has its own task."""
        if size <= FREE:
            return
        if size > MAX_BODY:  # it is chunked or compressed
            raise _too_large()
        held = request.get(_HELD, 0)
        more = size - FREE - held
        self._check_room(request, more)
        if not held and (task := asyncio.current_task()) is not None:
            task.add_done_callback(lambda _: self._count(-request[_HELD]))
        request[_HELD] = held + more
        self._count(more)

    def _count(self, more: int) -> None:
        self.held += more
        metrics.BODY_BYTES.inc(more)

    def _check_room(self, request: web.Request, size: int) -> None:
        public = request[CONTEXT].client.role is Role.PUBLIC
        if self.held + size > (self._most // 2 if public else self._most):
            metrics.BODIES_REJECTED.inc()
            detail = (
                f"Zbyt wiele dużych żądań naraz; niczego nie wykonano, "
                f"spróbuj ponownie za {RETRY_AFTER} s."
                if reads_polish(request)
                else f"Too many large requests at once. Nothing was done; "
                f"try again in {RETRY_AFTER} s."
            )
            raise Problem(503, detail=detail, headers={hdrs.RETRY_AFTER: str(RETRY_AFTER)})


async def parts(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a body of any size as it arrives, without holding it.

    :raises Problem: as `BodyBudget.read`, but for its size
    """
    with _faults():
        while True:
            async with asyncio.timeout(BODY_SECONDS):
                part = await request.content.readany()
            if not part:
                return
            yield part


async def accept_body(request: web.Request) -> None:
    """Ask for a body that the client holds back (`Expect: 100-continue`).

    :raises Problem: 501 a coding other than chunked
    """
    headers = request.headers
    if hdrs.TRANSFER_ENCODING in headers and headers[hdrs.TRANSFER_ENCODING].lower() != "chunked":
        # aiohttp would decode the chunks and pass on a compressed body.
        raise Problem(501, detail="only the chunked transfer coding is supported")
    if hdrs.EXPECT in headers and headers[hdrs.EXPECT].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _too_large() -> Problem:
    return Problem(413, detail=f"the body is larger than {MAX_BODY} bytes")


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise Problem(
            408, detail="the body arrived too slowly", headers={"Connection": "close"}
        ) from None
    except (web.RequestPayloadError, ConnectionResetError):
        raise Problem(
            400,
            detail="the body is incomplete, or does not match its headers",
            headers={"Connection": "close"},
        ) from None
