"""HTTP servers scripted byte for byte by a test: each connection runs one function."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class ScriptedServer:
    """Runs the next play for each connection; the last play serves all further ones."""

    def __init__(self, *plays: "Callable[[ScriptedServer], Play]") -> None:
        self._plays = [play(self) for play in plays]
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()
        """Set when either side has closed a connection."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        play = self._plays[min(self.connections, len(self._plays) - 1)]
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await play(reader, writer)
        self.gone.set()
        writer.close()

    async def read(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        _, found, rest = head.lower().partition(b"content-length:")
        body = await reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""
        self.requests.append(head + body)


def answering(*answers: bytes, then: Play | None = None) -> Callable[[ScriptedServer], Play]:
    """Answer one request with each of these byte strings, then close or continue."""

    def of(server: ScriptedServer) -> Play:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answer in answers:
                await server.read(reader)
                writer.write(answer)
                await writer.drain()
            if then is not None:
                await then(reader, writer)

        return play

    return of


async def until_closed(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writer.transport.abort()
