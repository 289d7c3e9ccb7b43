"""Ports that no other test run takes."""

import socket
from collections.abc import Iterator
from contextlib import closing

HOST = "127.0.0.1"
FIRST, LAST, BLOCK = 20000, 32000, 100  # below the range from which clients get their ports


class Ports:
    """Blocks of ports of this run's own.

    A block's first port stays bound as long as the run lives, so that a run beside it takes other
    blocks; a port found free by asking the kernel could be given to both.
    """

    def __init__(self) -> None:
        self._guards: list[socket.socket] = []
        self._free = self._find()

    def take(self) -> int:
        return next(self._free)

    def close(self) -> None:
        for guard in self._guards:
            guard.close()

    def _find(self) -> Iterator[int]:
        for first in range(FIRST, LAST, BLOCK):
            guard = socket.socket()
            try:
                guard.bind((HOST, first))
            except OSError:  # another run's block
                guard.close()
                continue
            self._guards.append(guard)
            yield from filter(_is_free, range(first + 1, first + BLOCK))
        raise RuntimeError(f"no port from {FIRST} to {LAST} is free")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:  # another program's
            return False
        return True
