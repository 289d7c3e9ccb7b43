"""aiohttp's request handler with bounds on what a connection keeps before a handler runs.

tests/unit/common/test_private_names.py fails if a new version moves a private name that is used.
"""

import asyncio
import secrets
from itertools import chain
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo as MalformedRequest

from libs.common.http.application import REQUEST_ID, Problem
from libs.common.process.logs import log

MAX_HEAD = 16 * 1024
"""The same limit as Node's. aiohttp only limits line length and count, 1 MiB kept while idle."""


class RequestHandler(web.RequestHandler):
    client: str | None = None

    _body: StreamReader = EMPTY_PAYLOAD
    """The body of the last request whose head is complete."""

    _head = 0
    """Bytes of an incomplete head, or of a body's incomplete trailers."""

    _unanswered = 0
    _ahead = b""
    """Data after a complete request that has no answer yet. aiohttp would parse and keep up to 32
    more requests, with bodies that are not counted."""

    async def start(self) -> None:
        # Before Python 3.12, accepted as its listener closed: aiohttp would wait for it for 20 s.
        if self._close and not self._messages:
            self.force_close()
        await super().start()

    def data_received(self, data: bytes) -> None:
        # Feed at most MAX_HEAD bytes per call, which bounds what escapes counting. The first call
        # may be empty: by it aiohttp continues with what it has.
        if len(data) <= MAX_HEAD:
            self._take(data)
            return
        for begin in range(0, len(data), MAX_HEAD):
            self._take(data[begin : begin + MAX_HEAD])

    def _take(self, data: bytes) -> None:
        body, heads = self._body, self._request_count
        if data and (self._unanswered > 1 or (self._unanswered and body.is_eof())):
            self._ahead += data
            if len(self._ahead) > MAX_HEAD:  # clients can repeat them (RFC 9112)
                self._ahead, self._close = b"", True
            return
        before = None if body.is_eof() else body.total_bytes
        super().data_received(data)
        self._unanswered += self._request_count - heads
        if self._request_count != heads:
            self._heads_came()
        elif before is not None and (body.total_bytes != before or self._reading_paused):
            self._head = 0
        else:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse_head()

    def _heads_came(self) -> None:
        self._head = 0
        message, body = self._messages[-1]
        if isinstance(message, MalformedRequest):
            self._end_body()
        self._body = body
        for each, _ in self._messages:
            if _head_size(each) > MAX_HEAD:
                self._refuse_head()
                return

    def _refuse_head(self) -> None:
        """Answer the last request with 400, and accept no more."""
        self._messages.clear()
        self._messages.append((MalformedRequest(400, HttpProcessingError(), ""), EMPTY_PAYLOAD))
        self._close = True
        self._end_body()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end_body(self) -> None:
        """End a body whose rest is malformed, so that no handler waits for it."""
        if not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("malformed HTTP follows"))
            self._body.feed_eof()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        # Called for each body. Unless reading was paused, nothing waits to be parsed.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        heads = self._request_count
        finished = await super().finish_response(request, resp, start_time)
        self._unanswered += self._request_count - heads - 1
        if self._request_count != heads:  # heads behind a declined upgrade
            self._heads_came()
        body = request.content
        if body.is_eof() and not body.at_eof() and body.exception() is None:
            body.read_nowait()  # unread, it would stay as long as the connection is idle
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            self.data_received(ahead)
        manager: Any = self._manager
        if manager is not None:  # None: the connection is lost
            manager.used(self)
        return finished

    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._task_handler

    @property
    def idle(self) -> bool:
        return self._current_request is None and not self._messages

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it contains the raw request
    ) -> web.StreamResponse:
        """Answer malformed HTTP, and failures outside our own code."""
        if status == 400:
            # Do not log the bytes: they may contain an e-mail address or a key.
            log.info("http.malformed")
            problem = Problem(400, detail="malformed HTTP/1.1 request")
        else:
            log.error("http.unanswered", exc_info=exc)
            problem = Problem(status)
        if request.writer.output_size > 0:  # an answer has begun: a second would be inserted
            raise ConnectionError
        response = problem.response()
        response.headers[REQUEST_ID] = secrets.token_hex(16)
        response.force_close()
        return response


def _head_size(message: RawRequestMessage | MalformedRequest) -> int:
    if isinstance(message, MalformedRequest):
        return 0
    return len(message.path) + sum(map(len, chain.from_iterable(message.raw_headers)))
