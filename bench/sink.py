"""The target of every benchmark: answers `ok` at once and records requests and their times.

    python bench/sink.py PORT
    GET /state      {path: {"count", "first", "last"}}, times of CLOCK_MONOTONIC
    GET /latencies  {path: [seconds, …]} of bodies with `sent=<monotonic ns>`
    GET /reset      deletes all records

A path that begins with /hang is never answered; one with /refuse gets a 500; one with /after-50 is
answered 50 ms later. It only understands
what the benchmarked clients send: whole bodies with a Content-Length.
"""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SENT = re.compile(rb"sent=(\d+)")
_AFTER = re.compile(r"/after-(\d+)")
_STATUS = {200: b"OK", 500: b"Internal Server Error"}


@dataclass
class Seen:
    count: int = 0
    first: float = 0.0
    last: float = 0.0
    latencies: list[float] = field(default_factory=list)


seen: dict[str, Seen] = defaultdict(Seen)


class Sink(asyncio.Protocol):
    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (head_end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:head_end]
            length = _LENGTH.search(head)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < end:
                return
            body, self._data = self._data[head_end + 4 : end], self._data[end:]
            self._handle(head.split(b" ", 2)[1].decode(), body)

    def _handle(self, path: str, body: bytes) -> None:
        if path == "/state":
            state = {
                each: {"count": one.count, "first": one.first, "last": one.last}
                for each, one in seen.items()
            }
            self._answer(json.dumps(state).encode())
        elif path == "/latencies":
            self._answer(json.dumps({each: one.latencies for each, one in seen.items()}).encode())
        elif path == "/reset":
            seen.clear()
            self._answer(b"{}")
        else:
            _note(seen[path], body)
            if path.startswith("/refuse"):
                self._answer(b"no", 500)
            elif late := _AFTER.match(path):
                asyncio.get_running_loop().call_later(int(late[1]) / 1000, self._answer, b"ok")
            elif not path.startswith("/hang"):
                self._answer(b"ok")

    def _answer(self, body: bytes, status: int = 200) -> None:
        self._transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (status, _STATUS[status], len(body), body)
        )


def _note(one: Seen, body: bytes) -> None:
    now = time.monotonic()
    one.first = one.first or now
    one.last = now
    one.count += 1
    if sent := _SENT.search(body):
        one.latencies.append(now - int(sent[1]) / 1e9)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
