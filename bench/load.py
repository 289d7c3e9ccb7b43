"""Closed loop: each connection sends its next request when the last was answered."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
    """POST each body once, as JSON; whoever answers states the length of its body."""
    return uvloop.run(_post(url, headers, bodies, connections))


async def _post(
    url: str, headers: Mapping[str, str], bodies: Iterator[bytes], connections: int
) -> Load:
    parts = urlsplit(url)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{lines}"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    load = Load()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for body in bodies:
            began = time.monotonic()
            writer.write(b"%s%d\r\n\r\n%s" % (head, len(body), body))
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
