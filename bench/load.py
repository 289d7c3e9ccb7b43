"""Closed loop: each connection sends its next request after the last answer."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import urlsplit

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Load:
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)


def post(
    url: str, headers: Mapping[str, str], bodies: Iterator[bytes], *, connections: int = 64
) -> Load:
    """POST each body once, as JSON; answers must have a Content-Length."""
    head = (
        f"POST {_target(url, headers)}Content-Type: application/json\r\nContent-Length: ".encode()
    )
    requests = (b"%s%d\r\n\r\n%s" % (head, len(body), body) for body in bodies)
    return uvloop.run(_send(url, requests, connections))


def get(urls: Iterator[str], headers: Mapping[str, str], *, connections: int = 64) -> Load:
    """GET each URL once; all are of one server."""
    first = next(urls)
    requests = (f"GET {_target(url, headers)}\r\n".encode() for url in chain([first], urls))
    return uvloop.run(_send(first, requests, connections))


def _target(url: str, headers: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{lines}"


async def _send(url: str, requests: Iterator[bytes], connections: int) -> Load:
    parts = urlsplit(url)
    load = Load()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for request in requests:
            began = time.monotonic()
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(answer)
            await reader.readexactly(int(length[1]) if length else 0)
            load.latencies.append(time.monotonic() - began)
            load.statuses[int(answer[9:12])] += 1
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*(connection() for _ in range(connections)))
    load.seconds = time.monotonic() - began
    return load
