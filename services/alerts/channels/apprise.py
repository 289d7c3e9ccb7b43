"""Anything that Apprise speaks. It blocks, so each send has a thread, and a time-box around it."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.alerts.alert import Claimed, Kind, Outcome, Reason
from services.alerts.channels.answers import redact, text_of
from services.alerts.config import AppriseTarget
from services.alerts.templates import Templates

if TYPE_CHECKING:
    from apprise import NotifyBase

_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


class Apprise:
    def __init__(self, name: str, target: AppriseTarget, templates: Templates) -> None:
        """:raises SystemExit: Apprise knows no service of this URL's kind"""
        self._name = name
        self._target = target
        self._templates = templates
        self._secrets = target.secrets()
        self._service = _service(name, target)
        # Its own threads: those of a hanging target cannot use up another's.
        self._threads = ThreadPoolExecutor(target.concurrency, f"apprise-{name}")

    async def send(self, job: Claimed) -> Outcome:
        text = self._templates.render(self._name, job) or text_of(job.event_type, job.payload)
        title = job.payload.get("subject")
        sending = self._threads.submit(
            self._send, text, title if isinstance(title, str) else "", _TYPES[job.severity]
        )
        try:
            async with asyncio.timeout(self._target.timeout):
                return await asyncio.wrap_future(sending)
        except TimeoutError:  # its thread goes on until the socket's own time-out
            excerpt = f"after {self._target.timeout:g} s"
            return Outcome(Kind.FAILED, Reason.TIMEOUT, excerpt=excerpt)

    def _send(self, text: str, title: str, kind: str) -> Outcome:
        with _warnings() as said:
            # It answers yes or no, and tells its log why.
            taken = self._service.notify(body=text, title=title, notify_type=kind)
        excerpt = redact(" ".join(said), self._secrets)
        if taken:
            return Outcome(Kind.DELIVERED, Reason.OK, excerpt=excerpt)
        return Outcome(Kind.FAILED, Reason.BAD_ANSWER, excerpt=excerpt)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _service(name: str, target: AppriseTarget) -> "NotifyBase":
    import apprise  # half a second and a hundred services, for those only who use it

    service = apprise.Apprise.instantiate(target.url.get_secret_value())
    if service is None:
        raise SystemExit(f"targets.{name}.url: Apprise knows no service of this kind")
    # A thread that nobody waits for any more must end.
    service.socket_connect_timeout = service.socket_read_timeout = target.timeout
    return service


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what Apprise logs in this thread."""
    said: list[str] = []
    mine = threading.get_ident()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == mine:
                said.append(record.getMessage())

    logger, handler = logging.getLogger("apprise"), Collector(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
