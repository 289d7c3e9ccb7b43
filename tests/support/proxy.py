"""A TCP proxy for fault tests: it cuts or stalls a connection, at once or at an exact byte.

async with Proxy(server_port) as proxy:  # clients connect to proxy.port
    reached = proxy.cut_before(DOWN, b"COMMIT")
    ...
    await reached.wait()
"""

import asyncio
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from tests.support.ports import HOST

CHUNK = 64 * 1024
# How long the beginning of a pattern at the end of a read waits for its rest.
HOLD_SECONDS = 0.05


class Direction(Enum):
    UP = "client to server"
    DOWN = "server to client"


UP, DOWN = Direction.UP, Direction.DOWN


@dataclass
class _Trap:
    """Springs once, at the first connection that reaches it."""

    at: int | bytes  # so many bytes from now, over all connections; or this pattern
    include: bool  # whether the pattern, or the last of the bytes, still passes
    stall: bool
    others: tuple[bytes, ...] = ()  # patterns that spring it too
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def spring(self, data: bytes) -> int | None:
        """Return how many of these bytes still pass, or None when the trap is not reached."""
        if isinstance(self.at, bytes):
            places = [(data.find(one), len(one)) for one in (self.at, *self.others)]
            found, size = min((place for place in places if place[0] >= 0), default=(-1, 0))
            return None if found < 0 else found + self.include * size
        if len(data) < self.at:
            self.at -= len(data)
            return None
        return self.at - (not self.include)

    def begun(self, data: bytes) -> int:
        """Return how many bytes at the end may be the beginning of the pattern."""
        if isinstance(self.at, int):
            return 0
        patterns = (self.at, *self.others)
        sizes = range(min(max(map(len, patterns)) - 1, len(data)), 0, -1)
        begins = {one[:size] for one in patterns for size in range(1, len(one))}
        return next((size for size in sizes if data[-size:] in begins), 0)


class Proxy:
    """Listens on `port` (0: a free one) and forwards to `server_port`, both on loopback."""

    def __init__(self, server_port: int, port: int = 0) -> None:
        self._server_port = server_port
        self.port = port
        self.delay = 0.0  # seconds that each read waits before it passes
        self.passed = dict.fromkeys(Direction, 0)
        self._listener: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._traps: dict[Direction, _Trap] = {}
        self._flowing = {direction: asyncio.Event() for direction in Direction}

    async def __aenter__(self) -> Self:
        await self.resume()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def cut(self) -> None:
        """End every open connection now, with whatever is still in its buffers; new ones work."""
        for task, writers in self._connections.items():
            for writer in writers:
                writer.transport.abort()
            task.cancel()

    def reset(self) -> None:
        """Cut by a reset (RST) and not by an end of stream (FIN), as after a host was lost."""
        for writers in self._connections.values():
            for writer in writers:
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        self.cut()

    async def refuse(self) -> None:
        """Cut, and refuse new connections (ECONNREFUSED) until `resume`."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()
        if self._connections:
            await asyncio.wait(self._connections)

    def stall(self, *directions: Direction) -> None:
        """Let nothing more pass (in these directions, or at all), but close nothing."""
        for direction in directions or Direction:
            self._flowing[direction].clear()

    async def resume(self) -> None:
        """Let everything flow again: what was held back passes, new connections are accepted."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, HOST, self.port, backlog=256)
            self.port = self._listener.sockets[0].getsockname()[1]
        for flowing in self._flowing.values():
            flowing.set()

    def cut_before(self, direction: Direction, at: int | bytes) -> asyncio.Event:
        """Cut before the n-th byte from now, or before the first byte of this pattern, passes."""
        return self._arm(direction, _Trap(at, include=False, stall=False))

    def cut_after(self, direction: Direction, at: int | bytes) -> asyncio.Event:
        """Cut when n bytes from now, or this pattern, have passed."""
        return self._arm(direction, _Trap(at, include=True, stall=False))

    def stall_before(self, direction: Direction, at: int | bytes, *others: bytes) -> asyncio.Event:
        """Stall before the n-th byte from now, or before the first of these patterns, passes."""
        return self._arm(direction, _Trap(at, include=False, stall=True, others=others))

    def stall_after(self, direction: Direction, at: int | bytes) -> asyncio.Event:
        return self._arm(direction, _Trap(at, include=True, stall=True))

    def _arm(self, direction: Direction, trap: _Trap) -> asyncio.Event:
        """Set the trap, in place of one that may be set there; the event tells that it sprang."""
        if not trap.at:
            raise ValueError("a trap lies at a byte, counted from 1, or at a pattern")
        self._traps[direction] = trap
        return trap.reached

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = [writer]
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._server_port)
            self._connections[task].append(server_writer)
            await self._join(
                asyncio.create_task(self._pump(UP, reader, server_writer)),
                asyncio.create_task(self._pump(DOWN, server_reader, writer)),
            )
        except (OSError, asyncio.CancelledError):
            # Not raised on: asyncio's server logs it, and this is what the test asked for.
            pass
        finally:
            for end in self._connections.pop(task):
                end.close()

    @staticmethod
    async def _join(*pumps: asyncio.Task[bool]) -> None:
        """Return when both directions have ended, or one was cut."""
        pending: Iterable[asyncio.Task[bool]] = pumps
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if any(pump.result() for pump in done):
                    return
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Forward until the end of the stream, which is passed on; True when it is to be cut."""
        writer.transport.set_write_buffer_limits(0)  # drained means: the kernel has it
        held = b""
        while True:
            data = await _read(reader, HOLD_SECONDS if held else None)
            ended = data == b""
            data = held + (data or b"")
            complete = ended or data == held  # nothing more is coming, or not in time
            held = b""
            await self._flowing[direction].wait()
            trap = self._traps.get(direction)
            if trap is not None and (passing := trap.spring(data)) is not None:
                del self._traps[direction]
                await self._forward(direction, writer, data[:passing])
                data = data[passing:]
                if not trap.stall:
                    trap.reached.set()
                    return True
                self.stall(direction)
                trap.reached.set()
                await self._flowing[direction].wait()
            elif trap is not None and not complete and (size := trap.begun(data)):
                data, held = data[:-size], data[-size:]
            await self._forward(direction, writer, data)
            if ended:
                writer.write_eof()
                return False

    async def _forward(
        self, direction: Direction, writer: asyncio.StreamWriter, data: bytes
    ) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        writer.write(data)
        await writer.drain()
        self.passed[direction] += len(data)


async def _read(reader: asyncio.StreamReader, seconds: float | None) -> bytes | None:
    """Return the next bytes, b"" at the end of the stream, None when there are none in time."""
    try:
        async with asyncio.timeout(seconds):
            return await reader.read(CHUNK)
    except TimeoutError:
        return None
