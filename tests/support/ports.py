"""Ports that no other test run takes."""

import socket
from contextlib import closing

HOST = "127.0.0.1"
FIRST, LAST, BLOCK = 20000, 32000, 100  # below the range from which clients get their ports


class Ports:
    """A block of ports of this run's own.

    Its first port stays bound as long as the run lives, so that a run beside it takes another
    block; a port found free by asking the kernel could be given to both.
    """

    def __init__(self) -> None:
        for first in range(FIRST, LAST, BLOCK):
            guard = socket.socket()
            try:
                guard.bind((HOST, first))
            except OSError:
                guard.close()
                continue
            self._guard = guard
            self._rest = iter(range(first + 1, first + BLOCK))
            return
        raise RuntimeError("no block of ports is free")

    def take(self) -> int:
        for port in self._rest:
            with closing(socket.socket()) as probe:
                try:
                    probe.bind((HOST, port))
                except OSError:  # another program's
                    continue
                return port
        raise RuntimeError("this run's ports are used up")

    def close(self) -> None:
        self._guard.close()
