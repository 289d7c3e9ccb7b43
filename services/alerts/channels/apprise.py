"""Any service that Apprise supports. Apprise blocks, so each send has a thread and a time-out.

An Apprise target is trusted more than the others: it may read a response of any length into memory
within its time-out, and it uses a proxy that the environment names. Its connections are checked
like any other, and it follows no redirect unless the URL itself says redirect=yes.
"""

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from services.alerts.channels.channel import BaseChannel, Secret, Target
from services.alerts.channels.network import Network
from services.alerts.channels.redact import Redactor
from services.alerts.channels.templates import Templates
from services.alerts.rules.delivery import Claimed, Kind, Outcome, Reason

if TYPE_CHECKING:
    from apprise import NotifyBase

_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


class AppriseTarget(Target):
    channel: Literal["apprise"]
    url: Secret  # of any service that Apprise supports; see its wiki


class Apprise(BaseChannel[AppriseTarget], section=AppriseTarget):
    def __init__(
        self, name: str, target: AppriseTarget, templates: Templates, network: Network
    ) -> None:
        """:raises SystemExit: Apprise does not support this kind of URL"""
        super().__init__(name, target, templates, network)
        self._redact = Redactor(target.secrets())
        self._service = _service(name, target)
        # Threads of its own, so that a hanging target cannot exhaust another's.
        self._threads = ThreadPoolExecutor(target.concurrency, f"apprise-{name}")

    async def send(self, job: Claimed) -> Outcome:
        text = self._templates.text(self._name, job)
        title = job.payload.get("subject")
        sockets = _Sockets(self._network)
        sending = self._threads.submit(
            self._send, sockets, text, title if isinstance(title, str) else "", _TYPES[job.severity]
        )
        try:
            async with asyncio.timeout(self._target.timeout):
                return await asyncio.wrap_future(sending)
        except TimeoutError:
            excerpt = f"after {self._target.timeout:g} s"
            return Outcome(Kind.FAILED, Reason.TIMEOUT, excerpt=excerpt)
        finally:
            sockets.end()  # so that its thread ends, whatever is still received

    def _send(self, sockets: "_Sockets", text: str, title: str, kind: str) -> Outcome:
        with _warnings() as said, sockets.of_this_thread():
            # It returns only a bool, and logs the reason.
            taken = self._service.notify(body=text, title=title, notify_type=kind)
        if taken:
            return Outcome(Kind.DELIVERED, Reason.OK, excerpt=self._redact(" ".join(said)))
        said += map(str, sockets.refused)
        reason = Reason.ADDRESS_REFUSED if sockets.refused else Reason.BAD_ANSWER
        return Outcome(Kind.FAILED, reason, excerpt=self._redact(" ".join(said)))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _service(name: str, target: AppriseTarget) -> "NotifyBase":
    import apprise  # takes half a second, so only where it is used

    _watch_sockets()
    for chatty in ("apprise", "urllib3"):  # they log URLs; our excerpt of it is redacted
        logging.getLogger(chatty).propagate = False
        logging.getLogger(chatty).addHandler(logging.NullHandler())
    asset = apprise.AppriseAsset(http_redirects=False)
    service = apprise.Apprise.instantiate(target.url.get_secret_value(), asset=asset)
    if service is None:
        raise SystemExit(f"targets.{name}.url: Apprise does not support this kind of URL")
    # Longer than our time-out, which closes the sockets: ours is the one reported.
    service.socket_connect_timeout = service.socket_read_timeout = 2 * target.timeout
    return service


class _Sockets:
    """The sockets of one send: each is checked before it connects, and closed with the send."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._over = False
        self.refused: list[OSError] = []

    @contextmanager
    def of_this_thread(self) -> Iterator[None]:
        _sending.sockets = self
        try:
            yield
        finally:
            _sending.sockets = None
            self.end()

    def connecting(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        try:
            self._network.check(address[0])
        except OSError as error:
            self.refused.append(error)
            raise
        with self._lock:
            if self._over:
                raise TimeoutError("the time of this send is over")
            # A duplicate descriptor: the library may close its own, or wrap it in TLS, before that.
            self._open.append(sock.dup())

    def end(self) -> None:
        with self._lock:
            self._over = True
            for sock in self._open:
                with suppress(OSError):  # not connected, or no longer
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
            self._open.clear()


_sending = threading.local()


@cache  # once: an audit hook cannot be removed
def _watch_sockets() -> None:
    """Install an audit hook that sees each address before a library's socket connects to it.

    The plugins open their sockets where none of our parameters reach.
    """

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
            sockets: _Sockets | None = getattr(_sending, "sockets", None)
            sock, address = arguments
            if sockets is not None and isinstance(address, tuple):
                sockets.connecting(sock, address)

    sys.addaudithook(watch)


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
