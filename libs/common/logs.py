"""JSON logs: one line an event, fixed event names, the request id on each line."""

import logging
import sys
from contextvars import ContextVar

import structlog

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Follows the work: HTTP header → AMQP header → log line and ledger row."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
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
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
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
