"""The record of acts: who did what, or viewed whose data, as a message (decisions 43 and 53).

A service with a database writes it in the transaction that acts (acts_outbox.py); the gateway has
none. The console stores it. It names people and rows by id, never by address: what reads like an
address is removed from texts that people write.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import uuid4

from libs.common.messaging.broker import Message
from libs.common.process import logs
from libs.domain.scopes import KEY, PERSON

EXCHANGE, ACTION_RECORD = "console.commands", "action.record"
DONE = "done"
MOST_REFS = 100
MOST_LETTERS = 200
MOST_READ = 1000
"""Letters of a text; searching a longer one without a space takes quadratic time."""
# An e-mail address, or nine digits or more: a phone number. Random ids and dates are none.
_ADDRESS = re.compile(
    r"(\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b\d{4}-\d\d-\d\d\b)"
    r"|\S*@\S*|\+?\d(?:[\s().,/–—-]{0,3}\d){8,}"
)
_TAKEN_OUT = "[…]"


@dataclass(frozen=True, slots=True)
class Actor:
    kind: str
    """staff | key | env"""
    id: str
    name: str | None = None
    """With a key of the environment, who the caller claims to be."""
    roles: tuple[str, ...] = ()
    client_address: str | None = None
    """Where a key was used; people's calls come from the console."""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Return who acts, as the gateway says: only it writes what reads like a proof."""
        said = headers.get("X-Operator", "").strip()
        if said.startswith(PERSON):
            id_, _, name = said.removeprefix(PERSON).partition(" ")
            roles = headers.get("X-Operator-Roles", "")
            return cls("staff", id_, name or None, tuple(filter(None, roles.split(","))))
        address = headers.get("X-Client-Address")
        if said.startswith(KEY):
            return cls("key", said.removeprefix(KEY), client_address=address)
        key = "ADMIN_API_KEY" if headers.get("X-Caller") == "admin" else "SERVICE_API_KEY"
        key = headers.get("X-Caller-Key", key)
        return cls("env", key, said[:200] or None, client_address=address)

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}" + (f" {self.name}" if self.name else "")


def without_addresses(text: str) -> str:
    return _ADDRESS.sub(lambda found: found[1] or _TAKEN_OUT, text[:MOST_READ])


@dataclass(frozen=True, slots=True)
class Act:
    actor: Actor
    action: str
    kind: str
    ref: str
    """What was acted on, by its id; never an address."""
    reason: str | None = None
    outcome: str = DONE

    @classmethod
    def of(cls, headers: Mapping[str, str], action: str, kind: str, ref: str, **more: Any) -> Self:
        return cls(Actor.of(headers), action, kind, ref, **more)

    def message(self, count: int | None = None) -> Message:
        """Return a record of its own each time: clients choose request ids, and repeat them."""
        id_, request_id = str(uuid4()), logs.request_id.get() or ""
        body = {
            "id": id_,
            "at": datetime.now(UTC).isoformat(),
            "actor_kind": self.actor.kind,
            "actor_id": self.actor.id,
            "actor_name": self.actor.name,
            "roles": list(self.actor.roles),
            "client_address": self.actor.client_address,
            "action": self.action,
            "object_kind": self.kind,
            "object_ref": self.ref,
            "reason": None if self.reason is None else without_addresses(self.reason),
            "request_id": request_id,
            "outcome": self.outcome,
            "count": count,
        }
        return Message(id_, ACTION_RECORD, body, request_id)


def refs(ids: Iterable[Any]) -> str:
    """Return ids as one text."""
    shown = [str(each) for each in ids]
    rest = len(shown) - MOST_REFS
    return " ".join(shown[:MOST_REFS]) + (f" and {rest} more" if rest > 0 else "")


def chosen(**filters: Any) -> str:
    """Return a filter as one text; callers write some of its values."""
    given = {name: value for name, value in filters.items() if value is not None}
    return " ".join(
        f"{name}={without_addresses(str(value))[:MOST_LETTERS]}" for name, value in given.items()
    )
