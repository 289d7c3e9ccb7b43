"""API keys: what the console handed out, looked up by digest (docs/decisions/0039)."""

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field

from libs.common.process.logs import log
from libs.domain.scopes import NOT_FOR_KEYS, Scope
from services.gateway.door.clients import Network, parse_address, parse_networks
from services.gateway.door.limits import Window, merged
from services.gateway.door.scopes import Scopes

PREFIX = "osk_"
ID = "[A-Z2-7]{10}"
_SCOPES = frozenset(Scope) - NOT_FOR_KEYS


def parse_ids(text: str) -> frozenset[str]:
    """Read comma-separated ids of keys.

    :raises ValueError: names the part at fault
    """
    ids = {part.strip() for part in text.split(",")} - {""}
    for each in ids:
        if not re.fullmatch(ID, each):
            raise ValueError(f"{each!r} is not a key's id: the part between osk_ and the next _")
    return frozenset(ids)


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    scopes: Scopes
    windows: tuple[Window, ...]
    """Empty: SERVICE_RATE_LIMIT."""
    networks: tuple[Network, ...]
    """Empty: any."""
    until: float
    """When this text of the key ends, in seconds since 1970."""

    def admits(self, address: str) -> bool:
        if not self.networks:
            return True
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self.networks)


class _Digest(BaseModel):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    until: AwareDatetime | None


class _Handed(BaseModel):
    """A key as the console sends it. A newer console may send more, or know more scopes."""

    id: Annotated[str, Field(pattern=f"^{ID}$")]
    digests: list[_Digest]
    scopes: list[str]
    limits: list[str]
    networks: list[str]
    expires_at: AwareDatetime

    def keys(self) -> Iterable[tuple[bytes, ApiKey]]:
        """:raises ValueError: a limit or a network is none"""
        known = frozenset(Scope(scope) for scope in self.scopes if scope in _SCOPES)
        windows = merged(Window.parse(limit.rpartition(" ")[2], limit) for limit in self.limits)
        networks = parse_networks(",".join(self.networks))
        for digest in self.digests:
            until = min(self.expires_at, digest.until or self.expires_at).timestamp()
            key = ApiKey(self.id, known, windows, networks, until)
            yield bytes.fromhex(digest.sha256), key


class ApiKeys:
    """The keys in force in this process."""

    def __init__(self, denied: Collection[str] = ()) -> None:
        """:param denied: ids of keys that open nothing, whatever the console says"""
        self._denied = frozenset(denied)
        self._keys: dict[bytes, ApiKey] = {}
        self._used: dict[str, tuple[float, int]] = {}

    def find(self, text: str, now: float) -> ApiKey | None:
        # The digest is of 256 random bits: what a look-up's time tells helps nobody to guess them.
        key = self._keys.get(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest())
        return key if key is not None and now < key.until else None

    def count(self, key: ApiKey, now: float) -> None:
        self._used[key.id] = (now, self._used.get(key.id, (now, 0))[1] + 1)

    def adopt(self, handed: Iterable[Any]) -> None:
        """Replace all keys with these. One that cannot be read opens nothing."""
        found: dict[bytes, ApiKey] = {}
        for each in handed:
            try:
                read = _Handed.model_validate(each)
                if read.id not in self._denied:
                    found.update(read.keys())
            except ValueError as error:
                log.error("keys.unreadable", error=str(error))  # noqa: TRY400 - says it all
        self._keys = found

    def take_used(self) -> dict[str, tuple[float, int]]:
        """Return last use and number of calls of each key used since the last time."""
        used, self._used = self._used, {}
        return used

    def put_back(self, used: dict[str, tuple[float, int]]) -> None:
        """Count them again, because the console did not take them."""
        for id_, (at, calls) in used.items():
            later, more = self._used.get(id_, (at, 0))
            self._used[id_] = (max(at, later), calls + more)

    def digests(self) -> list[str]:
        return [digest.hex() for digest in self._keys]

    def __len__(self) -> int:
        return len({key.id for key in self._keys.values()})


def used_as_json(used: dict[str, tuple[float, int]]) -> list[dict[str, Any]]:
    return [
        {"id": id_, "at": datetime.fromtimestamp(at, UTC).isoformat(), "calls": calls}
        for id_, (at, calls) in used.items()
    ]
