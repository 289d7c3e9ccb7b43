"""Received requests, configured behaviours and the mailbox, all bounded."""

import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from deploy.sandbox.behaviour import HEALTHY, Behaviour
from deploy.sandbox.mail import Mail, stamp

MIB = 1024 * 1024
ACCEPTED_LIMIT = (50_000, 64 * MIB)  # per target
REFUSED_LIMIT = (5_000, 16 * MIB)
MAILBOX_LIMIT = (10_000, 256 * MIB)


T = TypeVar("T", "Received", Mail)


class Kept(Generic[T]):
    """The newest items, by key; `count` includes evicted ones."""

    def __init__(self, limit: tuple[int, int]) -> None:
        self._most, self._most_bytes = limit
        self._items: OrderedDict[object, T] = OrderedDict()
        self._bytes = 0
        self.count = 0

    def add(self, key: object, item: T) -> None:
        self._items[key] = item
        self._bytes += item.size
        self.count += 1
        while len(self._items) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._items.popitem(last=False)[1].size

    def get(self, key: object) -> T | None:
        return self._items.get(key)

    def clear(self) -> None:
        self._items.clear()
        self._bytes = self.count = 0

    def newest_first(self) -> Iterable[T]:
        return reversed(self._items.values())

    def __len__(self) -> int:
        return len(self._items)


@dataclass(frozen=True, slots=True)
class Received:
    """One request or mail; stored raw and parsed on demand."""

    target: str
    content: bytes | Mail
    answered: int | None  # None: hung, closed, or the client disconnected
    headers: tuple[tuple[bytes, bytes], ...] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    number: int = 0

    @property
    def size(self) -> int:
        if isinstance(self.content, Mail):
            return self.content.size
        return len(self.content) + sum(len(name) + len(value) for name, value in self.headers)

    def as_json(self) -> dict[str, Any]:
        if isinstance(self.content, Mail):
            headers, body = self.content.as_received()
        else:
            headers = {
                name.decode("utf-8", "replace").lower(): value.decode("utf-8", "replace")
                for name, value in self.headers
            }
            body = _body(self.content, headers.get("content-type", ""))
        return {
            "at": stamp(self.at),
            "target": self.target,
            "headers": headers,
            "body": body,
            "answered": self.answered,
        }


def _body(raw: bytes, content_type: str) -> Any:
    text = raw.decode("utf-8", "replace")
    if content_type.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(text, keep_blank_values=True))
    try:
        data = json.loads(text)
        json.dumps(data, allow_nan=False)  # NaN and 1e999 are shown as text
    except (ValueError, RecursionError):
        return text
    return data


class Recorder:
    def __init__(self, targets: Iterable[str]) -> None:
        self._behaviours = dict.fromkeys(targets, HEALTHY)
        self._accepted = {name: Kept[Received](ACCEPTED_LIMIT) for name in self._behaviours}
        self._refused = {name: Kept[Received](REFUSED_LIMIT) for name in self._behaviours}
        self._numbers = 0
        self.mailbox = Kept[Mail](MAILBOX_LIMIT)

    @property
    def targets(self) -> list[str]:
        return list(self._behaviours)

    def behave(self, target: str, behaviour: Behaviour) -> None:
        self._behaviours[target] = behaviour

    def take(self, target: str) -> Behaviour:
        """Return how to answer this request, and count it against fail_next."""
        behaviour = self._behaviours[target]
        if behaviour.fail_next is not None:
            left = behaviour.fail_next - 1
            self._behaviours[target] = (
                behaviour.model_copy(update={"fail_next": left}) if left else HEALTHY
            )
        return behaviour

    def stage(self, target: str) -> str:
        return self._behaviours[target].stage or "dot"

    def record(
        self,
        target: str,
        content: bytes | Mail,
        *,
        accepted: bool,
        answered: int | None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self._numbers += 1
        received = Received(target, content, answered, headers, number=self._numbers)
        (self._accepted if accepted else self._refused)[target].add(self._numbers, received)
        if accepted and isinstance(content, Mail):
            content.created = received.at
            self.mailbox.add(content.id, content)

    def received(self, target: str, *, refused_too: bool) -> tuple[int, list[Received]]:
        """Return the total number, and the items that are kept, oldest first."""
        logs = [self._accepted[target], *([self._refused[target]] if refused_too else [])]
        found = (item for kept in logs for item in kept.newest_first())
        return sum(kept.count for kept in logs), sorted(found, key=attrgetter("number"))

    def forget(self) -> int:
        """Forget every request; mails stay in the mailbox."""
        logs = [*self._accepted.values(), *self._refused.values()]
        count = sum(kept.count for kept in logs)
        for kept in logs:
            kept.clear()
        return count
