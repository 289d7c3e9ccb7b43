"""JSON logs: one line an event, fixed event names, the request id on each line."""

import logging
import sys
from contextlib import suppress
from contextvars import ContextVar

import structlog

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Follows the work: HTTP header → AMQP header → log line and ledger row."""


Logger = structlog.typing.FilteringBoundLogger


class _Stdout:
    """Writes the lines of our own loggers; nothing fails because a line could not be written."""

    def __init__(self, name: str) -> None:
        self.name = name

    def msg(self, line: str) -> None:
        with suppress(OSError):  # a full disk, a closed pipe
            # Half a character, as a broken text may hold, is written as what it is.
            sys.stdout.buffer.write(f"{line}\n".encode(errors="backslashreplace"))
            sys.stdout.buffer.flush()

    debug = info = warning = error = critical = exception = log = msg


def get_logger(name: str) -> Logger:
    logger: Logger = structlog.get_logger(name)
    return logger


def configure(service: str, level: str = "INFO") -> None:
    """Send every log line of the process, libraries' included, to stdout as one JSON object."""

    def identify(
        _: object, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["service"] = service
        if (current := request_id.get()) is not None:
            event.setdefault("request_id", current)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        identify,
        structlog.processors.format_exc_info,
    ]
    as_json = structlog.processors.JSONRenderer(ensure_ascii=False)
    # Ours do not pass through `logging`: a line would cost three times as much.
    structlog.configure(
        processors=[*shared, as_json],
        logger_factory=_Stdout,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
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
