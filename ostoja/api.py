"""The gateway's HTTP API, called one request at a time."""

import json
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from ssl import SSLContext
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import (
    HTTPRedirectHandler,
    HTTPSHandler,
    ProxyHandler,
    Request,
    build_opener,
)

from ostoja.failure import Exit, Failure

ANSWER_SECONDS = 60.0  # a withdrawal at consent waits up to 40
MOST_IDS = 1_000  # in one request
PAGE = 1_000
OWN = "osk_"  # begins a key with scopes of its own, which has one header whatever it may do


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would send the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Api:
    def __init__(
        self, url: str, keys: Mapping[str, str], operator: str, tls: SSLContext | None = None
    ) -> None:
        """:param keys: the keys, by the header that carries each"""
        self.url = url.rstrip("/")
        self._keys = keys
        self._operator = operator
        # Directly: through no proxy of the environment, and following no redirect.
        self._opener = build_opener(ProxyHandler({}), _NoRedirect, HTTPSHandler(context=tls))

    def get(self, path: str, *, key: str | None = "X-ADMIN-API-KEY", **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self.call("GET", f"{path}?{urlencode(given)}" if given else path, key=key)

    def pages(
        self, path: str, *, limit: int | None = None, after: str = "cursor", **query: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list, to its end or until they hold `limit` items.

        :param limit: None: its pages have one size
        :param after: the parameter for the cursor
        """
        cursor: str | None = None
        while True:
            asked: dict[str, Any] = {after: cursor, **query}
            if limit is not None:
                asked = {"limit": min(limit, PAGE), **asked}
            page: dict[str, Any] = self.get(path, **asked)
            yield page
            cursor = page["next_cursor"]
            if limit is not None:
                limit -= len(page["items"])
            if cursor is None or (limit is not None and limit <= 0):
                return

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        """Call the gateway and return the answer's JSON; see `answer`."""
        return self.answer(method, path, body, **how)[1]

    def answer(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "X-ADMIN-API-KEY",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Call the gateway, and return the status as well, for routes where 200 and 202 differ.

        :param body: JSON; or bytes, which are JSON lines
        :param key: the header that carries the key of this route; None for a public one
        :raises Failure: the call did not succeed
        """
        known = {} if key is None else {key: self._keys.get(key, "")}
        if not all(known.values()):
            raise Failure(
                Exit.USAGE,
                "no key: run this in the folder that has .env, or set OSTOJA_KEY or --key",
            )
        known = {
            "X-API-KEY" if each.startswith(OWN) else name: each for name, each in known.items()
        }
        sent = {**known, "X-Operator": _header(self._operator), **(headers or {})}
        if not self.url.startswith(("http://", "https://")):
            raise Failure(Exit.USAGE, f"{self.url} is not an http:// or https:// URL")
        data = None
        if isinstance(body, bytes):
            data, sent["Content-Type"] = body, "application/x-ndjson"
        elif body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            request = Request(self.url + path, data, sent, method=method)  # noqa: S310 - it is
            with self._opener.open(request, timeout=ANSWER_SECONDS) as response:
                return response.status, json.loads(response.read())
        except HTTPError as error:
            with error:
                raise _refused(error.code, error.headers.get("Retry-After"), error) from None
        except ValueError as error:  # also for a malformed URL
            raise Failure(Exit.USAGE, f"{self.url} is not the URL of a gateway: {error}") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Failure(
                Exit.UNREACHABLE,
                f"{self.url} does not answer: {reason or type(error).__name__}",
            ) from None


def _header(text: str) -> str:
    """Drop characters that a header cannot contain; a person's name may have them."""
    return "".join(letter for letter in text if " " <= letter <= "~")[:200] or "unknown"


def _refused(status: int, again: str | None, body: IO[bytes]) -> Failure:
    problem = _problem(body)
    text = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    if faults := problem.get("errors"):
        text += ": " + "; ".join(f"{each['field']}: {each['message']}" for each in faults)
    if status in {401, 403}:
        return Failure(Exit.REFUSED, f"refused: {text}")
    if status == 429:
        return Failure(Exit.REFUSED, f"too many requests; try again in {again or 'a few'} seconds")
    if status in {404, 409, 410}:
        return Failure(Exit.NOT_OK, text)
    if status < 500:
        return Failure(Exit.USAGE, text)
    return Failure(Exit.UNREACHABLE, f"{text} (HTTP status {status})")


def _problem(body: IO[bytes]) -> dict[str, Any]:
    try:
        found = json.loads(body.read())
    except (ValueError, OSError, HTTPException):
        return {}
    return found if isinstance(found, dict) else {}
