"""Protocol B, step 5: when the step that checks the clock ends, the terminator has been sent.

Were it only queued in the event loop, a pause could fit between the look and the dot after all.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from aiosmtplib.protocol import SMTPProtocol

from services.alerts.rules.delivery import Kind, Outcome
from tests.support import loops
from tests.support.ports import HOST
from tests.support.targets import mail_target, send

pytestmark = pytest.mark.promise("P3")


class Server:
    """Serves one connection from a thread while the client's event loop is blocked."""

    def __init__(self) -> None:
        self.dot = threading.Event()
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]

    def serve(self) -> None:
        client, _ = self._listener.accept()
        # In the end the client may reset the connection.
        with suppress(ConnectionError), self._listener, client, client.makefile("rwb", 0) as file:
            file.write(b"220 mail.example ESMTP\r\n")
            for line in file:
                if line == b"DATA\r\n":
                    file.write(b"354 go ahead\r\n")
                    for text in file:
                        if text == b".\r\n":
                            break
                    self.dot.set()
                file.write(b"250 ok\r\n")


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    thread.join(5)


@pytest.mark.parametrize("loop", loops.BOTH)
def test_the_terminator_has_left_the_process_when_its_step_ends(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, arrived = SMTPProtocol.write, list[bool]()
    with serving() as server:

        def write_and_stand_still(self: SMTPProtocol, data: bytes) -> None:
            write(self, data)
            if data == b".\r\n":
                arrived.append(server.dot.wait(2))

        monkeypatch.setattr(SMTPProtocol, "write", write_and_stand_still)

        async def one() -> Outcome:
            return await send(mail_target(server.port, timeout=5))

        with asyncio.Runner(loop_factory=loops.BOTH[loop]) as runner:
            assert runner.run(one()).kind is Kind.DELIVERED
    assert arrived == [True]
