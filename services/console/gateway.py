"""Calls the gateway as the person who is logged in. What they may do is decided there.

A fault is a value, not an exception: a page says which of its parts is away, and shows the others.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from libs.common.http.application import REQUEST_ID
from libs.common.process import certificates, logs, tracing
from libs.common.process.logs import log
from libs.domain.scopes import operator_action
from libs.domain.signed_links import Tokens
from services.console.store.sessions import Visitor

LOOK_SECONDS = 5.0
ACT_SECONDS = 25.0
"""Shorter than the gateway waits for the console itself."""
_FAULTS = {
    0: "away",
    401: "away",  # it has other OPERATOR_KEYS, or another clock
    403: "not_allowed",
    404: "not_there",
    409: "changed_meanwhile",
    410: "not_there",
    422: "not_accepted",
    429: "away",
    503: "away",
}

Query = Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    """0: the gateway was not reached, so nothing happened. 504: it may have."""
    body: Any = None
    """The parsed JSON; for a refusal, its problem+json. None if there is none."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def fault(self) -> str | None:
        """Return why nothing can be shown, or that the outcome is unknown: a key of texts.toml."""
        return None if self.ok else _FAULTS.get(self.status, "unsure")

    @property
    def page_status(self) -> int:
        """Return the status of a page that shows the fault."""
        return 503 if self.fault == "away" else self.status


class Gateway:
    def __init__(
        self, session: aiohttp.ClientSession, url: str, keys: str, tls_dir: Path | None
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._tokens = Tokens(keys)
        secure = url.startswith("https:")
        self._tls = certificates.Current(tls_dir, certificates.client) if secure else None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, keys: str, tls_dir: Path | None = None) -> AsyncIterator[Self]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield cls(session, url, keys, tls_dir)

    async def get(self, visitor: Visitor, path: str, **query: str | int | None) -> Answer:
        """:param path: each part of it that comes from elsewhere through `part`"""
        return await self.get_within(visitor, path, LOOK_SECONDS, query)

    async def get_within(
        self, visitor: Visitor, path: str, seconds: float, query: Query = MappingProxyType({})
    ) -> Answer:
        answer = await self.ask("GET", visitor, path, seconds=seconds, query=query)
        if answer.fault == "unsure":  # a GET changes nothing, so no outcome is unknown
            return Answer(0, answer.body)
        return answer

    async def post(
        self, visitor: Visitor, path: str, body: Any = None, *, key: str | None = None,
        seconds: float = ACT_SECONDS,
    ) -> Answer:  # fmt: skip
        """:param key: Idempotency-Key: a second press of the same button has no further effect"""
        return await self.ask("POST", visitor, path, body, seconds=seconds, key=key)

    async def ask(
        self, method: str, visitor: Visitor, path: str, body: Any = None, *,
        seconds: float = ACT_SECONDS, key: str | None = None, query: Query = MappingProxyType({}),
    ) -> Answer:  # fmt: skip
        asked = {name: str(value) for name, value in query.items() if value is not None}
        url = URL(self._url + path, encoded=True).update_query(asked)
        subject, roles = f"{visitor.staff_id} {visitor.name}", ",".join(sorted(visitor.roles))
        action, request_id = operator_action(method, url.raw_path), logs.request_id.get() or ""
        headers = {
            "X-Operator-Token": self._tokens.sign(subject, roles, action, datetime.now(UTC)),
            REQUEST_ID: request_id,
            **tracing.headers(request_id),
        }
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            async with self._session.request(
                method,
                url,
                json=body,
                headers=headers,
                allow_redirects=False,
                ssl=self._tls.context() if self._tls else True,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as response:
                text = await response.read()
                if response.status == HTTPStatus.UNAUTHORIZED:
                    log.error("gateway.operator_refused")
                is_json = response.content_type.endswith("json")
                return Answer(response.status, json.loads(text) if text and is_json else None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            # Not the URL, which may name a person.
            log.warning("gateway.failed", error=type(error).__name__, reached=reached)
            return Answer(504 if reached else 0)


def part(text: object) -> str:
    """Return one part of a path, quoted."""
    return quote(str(text), safe="")


def items(answer: Answer, name: str = "items") -> list[Mapping[str, Any]]:
    """Return the items of a list's answer; none for a fault."""
    return items_in(answer.body, name) if answer.ok else []


def items_in(body: Mapping[str, Any] | None, name: str = "items") -> list[Mapping[str, Any]]:
    return list((body or {}).get(name, ()))
