"""Bodies of requests: how large one may be, how slow, and how much of them all a process holds.

A body may take 20 s to come and wait for its owner for longer: of 10,000 connections with 256 KiB
each a process would hold 2.5 GB. So there is a bound for all of them together. The first 4 KiB of
each are not counted: who fills the rest shuts out large bodies, and no message of ordinary size.
And without a key only half of it can be had, or anybody could shut out the company's own programs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import hdrs, web

from libs.common.web import MAX_BODY, Problem
from services.gateway import metrics
from services.gateway.clients import Role
from services.gateway.door import VISIT, reads_polish

BODY_SECONDS = 20.0
FREE = 4 * 1024
MOST = 64 * 2**20
RETRY_AFTER = 5


class Bodies:
    """Reads them, and counts what this process holds of them.

    The copy that an owner is sent comes on top: memory grows by twice the bound at most.
    """

    def __init__(self, most: int = MOST) -> None:
        """:param most: bytes beyond the first 4 KiB of each; half of it for who shows no key"""
        self.held = 0
        self._most = most

    async def read(self, request: web.Request) -> bytes:
        """Return the whole body. It is counted until the request has its answer.

        :raises Problem: 413 too large, 503 no room for it, 501 a coding other than chunked,
            408 too slow, 400 cut off or not what its headers say
        """
        length = request.content_length or 0
        if length > MAX_BODY:
            raise _too_large()
        if length > FREE:
            self._check_room(request, length - FREE)
        await may_come(request)
        content = request.content
        if content.is_eof() and content.exception() is None:  # all of it is here
            body = content.read_nowait()
            if len(body) > FREE:
                _Hold(self, request).grow(len(body))
            return body
        with _faults():
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read_on(request)

    async def _read_on(self, request: web.Request) -> bytes:
        # Not request.read(): that keeps the body for as long as the connection is idle afterwards.
        body = bytearray()
        hold: _Hold | None = None
        while part := await request.content.readany():
            body += part
            if len(body) > FREE:
                hold = hold or _Hold(self, request)
                hold.grow(len(body))
        return bytes(body)

    def take(self, request: web.Request, size: int) -> None:
        self._check_room(request, size)
        self.held += size
        metrics.BODY_BYTES.inc(size)

    def give_back(self, size: int) -> None:
        self.held -= size
        metrics.BODY_BYTES.dec(size)

    def _check_room(self, request: web.Request, size: int) -> None:
        public = request[VISIT].client.role is Role.PUBLIC
        if self.held + size > (self._most // 2 if public else self._most):
            metrics.BODIES_REFUSED.inc()
            detail = (
                f"Zbyt wiele dużych żądań naraz; niczego nie wykonano, "
                f"spróbuj ponownie za {RETRY_AFTER} s."
                if reads_polish(request)
                else f"Too many large requests at once; nothing was done, "
                f"try again in {RETRY_AFTER} s."
            )
            raise Problem(503, detail=detail, headers={hdrs.RETRY_AFTER: str(RETRY_AFTER)})


class _Hold:
    """What one request holds, however it ends: until its task does, and each has one of its own."""

    def __init__(self, bodies: Bodies, request: web.Request) -> None:
        self._bodies = bodies
        self._request = request
        self._size = 0
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine called this
        task.add_done_callback(self._end)

    def grow(self, body: int) -> None:
        """:param body: bytes of it, as many as there are now"""
        if body > MAX_BODY:  # it comes in chunks, or compressed
            raise _too_large()
        more = body - FREE - self._size
        self._bodies.take(self._request, more)
        self._size += more

    def _end(self, _: object) -> None:
        self._bodies.give_back(self._size)


async def parts(request: web.Request) -> AsyncIterator[bytes]:
    """Give a body of any size as it comes, none of which is held.

    :raises Problem: as `Bodies.read`, but for its size
    """
    with _faults():
        while True:
            async with asyncio.timeout(BODY_SECONDS):
                part = await request.content.readany()
            if not part:
                return
            yield part


async def may_come(request: web.Request) -> None:
    """Ask for a body that the client keeps back (`Expect: 100-continue`).

    :raises Problem: 501 a coding other than chunked
    """
    if request.headers.get(hdrs.TRANSFER_ENCODING, "chunked").lower() != "chunked":
        # aiohttp would undo the chunks and hand over what is still compressed.
        raise Problem(501, detail="of transfer codings only chunked is understood")
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
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
            408, detail="the body took too long", headers={"Connection": "close"}
        ) from None
    except (web.RequestPayloadError, ConnectionResetError):
        raise Problem(
            400,
            detail="the body was cut off, or is not what its headers say",
            headers={"Connection": "close"},
        ) from None
