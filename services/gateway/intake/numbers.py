"""Running numbers of the alerts that this process hands over: a gap shows what never came."""

import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from services.gateway.intake.messages import AcceptedAlert

MOST_UNUSED = 100
"""Ranges; a number that is forgotten here looks like a lost alert."""


class Numbers:
    def __init__(self) -> None:
        self.sender = f"{socket.gethostname()[:60]} {secrets.token_hex(8)}"
        self._last = 0
        self._unused: list[tuple[int, int]] = []

    @contextmanager
    def given(self, alerts: Sequence[AcceptedAlert]) -> Iterator[None]:
        """Number the alerts of a request while they are handed over.

        On an error nobody is answered 202: a later alert says that these numbers are not used.
        """
        first, told = self._last + 1, self._unused
        self._last, self._unused = self._last + len(alerts), []
        for number, alert in enumerate(alerts, first):
            alert.body["numbered"] = {"sender": self.sender, "number": number}
        if told:
            alerts[0].body["numbered"]["unused"] = told
        try:
            yield
        except BaseException:
            mine = (first, first + len(alerts) - 1)
            self._unused = _merged([*self._unused, *told, mine])[-MOST_UNUSED:]
            raise


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and merged[-1][1] + 1 >= first:
            merged[-1] = merged[-1][0], last
        else:
            merged.append((first, last))
    return merged
