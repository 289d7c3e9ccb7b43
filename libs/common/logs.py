"""JSON logs: one line an event, fixed event names, the request id on each line."""

import asyncio
import atexit
import json
import logging
import sys
import time
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TextIO

import structlog

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Follows the work: HTTP header → AMQP header → log line and ledger row."""


Logger = structlog.typing.FilteringBoundLogger


class _Stdout:
    """Writes the lines of our own loggers; nothing fails because a line could not be written."""

    writing_in: asyncio.AbstractEventLoop | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def debug(self, line: str) -> None:
        """Write it with what else is said in this turn of the loop: a system call costs more."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.msg(line)
            return
        if not _unwritten or loop is not _Stdout.writing_in:
            _Stdout.writing_in = loop  # another one may have ended with lines unwritten
            loop.call_soon(_write)
        _unwritten.append(line)

    info = debug

    def msg(self, line: str) -> None:
        _unwritten.append(line)
        _write()

    warning = error = critical = exception = log = msg


_unwritten: deque[str] = deque()


def _write() -> None:
    lines = []
    with suppress(IndexError):  # another thread may be at it, too
        while True:
            lines.append(_unwritten.popleft())
    if lines:
        with suppress(OSError):  # a full disk, a closed pipe
            # Half a character, as a broken text may hold, is written as what it is.
            text = "\n".join([*lines, ""])
            sys.stdout.buffer.write(text.encode(errors="backslashreplace"))
            sys.stdout.buffer.flush()


atexit.register(_write)


class _InOrder(logging.StreamHandler[TextIO]):
    """Writes what libraries say, after what we said before."""

    def emit(self, record: logging.LogRecord) -> None:
        _write()
        super().emit(record)


def _now() -> str:
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{_to_the_second(seconds)}.{rest // 1000:06}Z"


@lru_cache(maxsize=1)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def get_logger(name: str) -> Logger:
    logger: Logger = structlog.get_logger(name)
    return logger


def configure(service: str, level: str = "INFO") -> None:
    """Send every log line of the process, libraries' included, to stdout as one JSON object."""

    # One step in place of structlog's four: a line is written for every request.
    def complete(
        logger: Any, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        record = event.get("_record")  # of one that came through `logging`
        event["level"] = "error" if method == "exception" else method
        event["logger"] = record.name if record is not None else logger.name
        event["timestamp"] = _now()
        event["service"] = service
        if (current := request_id.get()) is not None:
            event.setdefault("request_id", current)
        return event

    shared: list[structlog.typing.Processor] = [complete, structlog.processors.format_exc_info]
    encode = json.JSONEncoder(ensure_ascii=False, default=repr).encode
    as_json = structlog.processors.JSONRenderer(serializer=lambda event, **_: encode(event))
    # Ours do not pass through `logging`: a line would cost three times as much.
    structlog.configure(
        processors=[*shared, as_json],
        logger_factory=_Stdout,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = _InOrder(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, as_json],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # They log a line per connection attempt or per request; ours say what matters.
    for noisy in ("aiohttp.access", "alembic", "aiosmtplib"):
        logging.getLogger(noisy).setLevel("WARNING")
    for noisier in ("aio_pika", "aiormq"):  # a traceback for each lost connection and attempt
        logging.getLogger(noisier).setLevel("CRITICAL")
