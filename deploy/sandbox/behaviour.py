"""How a simulated provider answers and, by `PUT /behaviour/{target}`, misbehaves."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

from aiohttp import web
from pydantic import Field, model_validator

from libs.common.http.application import Model

Stage = Literal["mail", "rcpt", "data", "dot"]


class Behaviour(Model):
    """Give one of status, hang, close, reset, cut, error. delay_seconds may be added, or alone.

    status         200 resets; 300-599 is the answer. For `email`: an SMTP reply, 4yz or 5yz
    retry_after    seconds, as the Retry-After header; with status 429 or 503
    delay_seconds  wait before the answer (for `email`: before the final reply)
    drip_seconds   over HTTP: send the answer byte by byte with this pause; with an answer or alone
    hang           never answer
    close          close the connection without an answer
    reset          reset the connection without an answer
    cut            over HTTP: close in the middle of the answer
    error          answer 200 with this error in the body, in the target's own format
    accepted       with hang, close, reset or cut: accept the message; only the answer is lost
    fail_next      only the next N requests; alone it means status 500 (`email`: 451)
    stage          `email` only: misbehave at MAIL, RCPT, DATA, or after the dot (the default)
    """

    status: int | None = Field(None, ge=200, le=599)
    retry_after: int | None = Field(None, ge=0, le=86_400)
    delay_seconds: float | None = Field(None, ge=0, le=3600, allow_inf_nan=False)
    drip_seconds: float | None = Field(None, gt=0, le=3600, allow_inf_nan=False)
    hang: bool = False
    close: bool = False
    reset: bool = False
    cut: bool = False
    error: str | None = Field(None, min_length=1, max_length=1000)
    accepted: bool = False
    fail_next: int | None = Field(None, ge=1, le=1_000_000)
    stage: Stage | None = None

    @model_validator(mode="after")
    def _means_one_thing(self) -> Self:
        ways = sum((self.hang, self.close, self.reset, self.cut, bool(self.error)))
        if ways + (self.status is not None) > 1:
            raise ValueError("give one of status, hang, close, reset, cut and error")
        if not self.model_dump(exclude_defaults=True):
            raise ValueError('give a behaviour; {"status": 200} resets')
        return self

    @property
    def failing_status(self) -> int | None:
        return None if self.status == 200 else self.status

    @property
    def loses_answer(self) -> bool:
        return self.hang or self.close or self.reset or self.cut

    @property
    def fails(self) -> bool:
        return self.failing_status is not None or self.loses_answer or bool(self.error)


HEALTHY = Behaviour(status=200)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    accepted: bool
    content_type: str = "application/json"
    keep: Callable[[], None] = lambda: None
    """Run after the message was accepted."""


Provider = Callable[[web.Request, bytes], Answer]


def json_object(body: Any) -> dict[str, Any] | None:
    try:
        data = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def hang_up(transport: asyncio.WriteTransport, *, reset: bool) -> None:
    if not reset:
        transport.close()
        return
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
