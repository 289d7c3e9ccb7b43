"""P17: no request keeps a process busy, at any public route, through the services behind it.

Each public route is in `ROUTES`, with what of it a stranger may fill. The parsers by themselves are
in tests/unit/test_linear.py.
"""

import asyncio
import json
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
import pytest
import yaml
from yarl import URL

from deploy.up.environment import SERVICES
from libs.common.http.application import MOST_BYTES
from libs.domain.signed_links import Tokens
from tests.support import effort
from tests.support.pumped import FORMS, JSON, MULTIPARTS, TEXTS
from tests.support.routes import route_table
from tests.support.stack import Stack
from tests.support.system import WORDING

pytestmark = pytest.mark.promise("P17")

STACK_SETTINGS = {"RATE_LIMIT_MODE": "shadow", "TRUSTED_PROXIES": "127.0.0.1/32"}
BODY = 64 * 1024
PATH = 2000
TRIES = 9
SITE = "https://www.ostoja-wnetrza.example"
KINDS = {
    "application/json": JSON,
    "application/x-www-form-urlencoded": FORMS,
    "multipart/form-data; boundary=x": MULTIPARTS,
    "application/x-www-form-urlencoded; charset=punycode": {"codec": lambda size: "a" * size},
}
FEW = {
    name: TEXTS[name]
    for name in TEXTS
    if name[1:-2]
    in {"a", "ż", "1", "1 ", ".", ";", "@", "a@b.pl ", "%", "35 ", "dwa ", "ﷺ", "nie "}
    or name[0] not in "'\""
}
HEADER = {"a", "1", ",", ";", "=", '"', "a=b; ", "a;q=1,", "1.", "::", "(", "%4", 'W/"a",'}


@dataclass(frozen=True)
class Given:
    """What a stranger may fill of a route."""

    path: str
    """With {} for a text."""
    fields: tuple[str, ...] = ()
    """Of JSON, or with `form` of a plain form."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """The other fields, so that the service behind reads the text."""
    form: bool = False


NEW = "a new session"
_TABLE = yaml.safe_load(Path(__file__).with_name("linear.yaml").read_text(encoding="utf-8"))
ROUTES: dict[tuple[str, ...], list[Given]] = {
    tuple(route.split(" ")): [Given(**each) for each in known] for route, known in _TABLE.items()
}
ACTIONS = {
    "/unsubscribe": "unsubscribe",
    "/preferences": "unsubscribe",
    "/opt-in/confirm": "opt-in",
    "/erasure/confirm": "erasure",
}


def test_every_public_route_is_in_the_table() -> None:
    public = {
        (method, path)
        for (method, path), requires in route_table().items()
        if requires.scope is None and method != "head"
    }
    assert public == set(ROUTES)


class Caller:
    """Sends requests, and says what they cost the service that is busiest with it."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._session = session
        self._loops = [
            Path(f"/proc/{pid}/task/{pid}/schedstat")
            for name in SERVICES
            for pid in (stack.pid(name), *_children(stack.pid(name)))
        ]
        self._tokens = Tokens(stack.values["TOKEN_KEYS"])
        self._pings = Tokens(stack.values["PING_KEYS"])
        self.statuses: dict[int, int] = {}
        self._addresses = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in count())

    async def cost(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> float:
        # As a browser from another address each time: the console reads no form of another site,
        # and neither limits nor waits for a login.
        sent = {
            "origin": SITE,
            "sec-fetch-site": "same-origin",
            "x-forwarded-for": next(self._addresses),
            **(headers or {}),
        }
        before = self._spent()
        with suppress(aiohttp.ClientError):
            async with self._session.request(
                method,
                URL(self._stack.url + path, encoded=True),
                headers=sent,
                data=body,
                allow_redirects=False,
            ) as answer:
                await answer.read()
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        after = self._spent()
        while sum(later := self._spent()) - sum(after) > 100_000:  # a loop is not done with it
            await asyncio.sleep(0.001)
            after = later
        return max(end - begin for begin, end in zip(before, later, strict=True)) / 1e9

    def _spent(self) -> list[int]:
        """Return the nanoseconds that each loop has run."""
        return [int(loop.read_text().split()[0]) for loop in self._loops]

    def link(self, path: str) -> str:
        """Return the path with a token that is valid for it."""
        if path.startswith("/ping/T"):
            token = self._pings.sign(str(uuid.uuid4()), "0", "ping", datetime.now(UTC))
            return path.replace("/T", f"/{token}", 1)
        action = ACTIONS.get(path.partition("?")[0])
        if action is None:
            return path
        token = self._tokens.sign("a@example.com", "marketing", action, datetime.now(UTC))
        return path.replace("token=T", f"token={token}")


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
async def caller(stack: Stack) -> Any:
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=120)
    ) as session:
        yield Caller(stack, session)


SLACK_SECONDS = 0.006
"""A whole service also keeps time, and a refused head costs it a new connection."""
AsyncCost = Callable[[int], Awaitable[float]]


async def fault(cost: AsyncCost, size: int) -> str | None:
    """Return what is wrong, as `effort.fault` does."""
    halves, wholes = list[float](), list[float]()
    said: str | None = None
    while effort.goes_on(wholes):
        halves.append(await cost(size // 2))
        wholes.append(await cost(size))
        if (said := effort.judged(halves, wholes, SLACK_SECONDS)) is None:
            return None
    return said


def in_field(given: Given, name: str, text: str) -> tuple[dict[str, str], bytes]:
    if given.form:
        pairs = {**given.rest, name: text}
        body = "&".join(f"{key}={quote_plus(value)}" for key, value in pairs.items())
        return {"Content-Type": "application/x-www-form-urlencoded"}, body.encode()
    wording = json.dumps(WORDING.text)[1:-1]
    whole = json.loads(json.dumps(given.rest).replace("the wording", wording))
    at = whole
    *outer, last = name.split(".")
    for each in outer:
        at = at[each]
    at[last] = text
    headers = {"Content-Type": "application/json", "Idempotency-Key": quote(text[:20]) + "x" * 16}
    body = json.dumps(whole, ensure_ascii=False).replace(NEW, uuid.uuid4().hex)
    return headers, body.encode()


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_a_public_route_reads_in_linear_time(caller: Caller, route: tuple[str, str]) -> None:
    method, _ = route
    costs: list[tuple[str, AsyncCost, int]] = []
    for given in ROUTES[route]:
        path = caller.link(given.path)

        def filled(make: Callable[[int], str], path: str = path) -> AsyncCost:
            return lambda size: caller.cost(method, path.replace("{}", quote(make(size))))

        def headed(unit: str, path: str = path) -> AsyncCost:
            return lambda size: caller.cost(method, path.replace("{}", "x"), heads(unit, size))

        costs += [
            (f"path {name}", filled(make), PATH) for name, make in FEW.items() if "{}" in path
        ]
        costs += [(f"headers {unit}", headed(unit), 1000) for unit in HEADER]
        if method == "post":
            costs += [*of_bodies(caller, path.replace("{}", "x"), given)]
    faults = [f"{name}: {said}" for name, cost, size in costs if (said := await fault(cost, size))]
    assert faults == [], caller.statuses
    assert 429 not in caller.statuses, "what is refused before it is read proves nothing"


FILLED = [(path, given) for (_, path), known in ROUTES.items() for given in known if given.rest]


async def test_the_fields_beside_the_filled_one_lead_to_the_reader(
    caller: Caller, stack: Stack
) -> None:
    refused = stack.log("console").count("login.refused")
    for path, given in FILLED:
        caller.statuses.clear()
        name = next(name for name, value in given.rest.items() if isinstance(value, str))
        await caller.cost("post", path, *in_field(given, name, given.rest[name]))
        taken = {403} if path == "/console/login" else {200, 202, 303}
        assert caller.statuses.keys() <= taken, (given, caller.statuses)
    assert stack.log("console").count("login.refused") == refused + 1, "it was another 403"


def heads(unit: str, size: int) -> dict[str, str]:
    """Fill each header that something reads, up to this many thousandths of its bound."""
    skipped = {"host", "expect", "upgrade", "connection", "transfer-encoding", "content-encoding"}
    room, found = 14 * 1024, {}
    for name, most in MOST_BYTES.items():
        filled = (unit * most)[: most * size // 1000].strip()
        if name.decode() not in skipped and filled and len(filled) < room:
            found[name.decode()] = filled
            room -= len(filled) + len(name)
    return found


def of_bodies(caller: Caller, path: str, given: Given) -> Iterator[tuple[str, AsyncCost, int]]:
    for kind, inputs in KINDS.items():
        headers = {"Content-Type": kind, "Idempotency-Key": "k" * 16}
        for name, make in inputs.items():
            yield f"{kind} {name}", posted(caller, path, encoded(make), headers), BODY
    for name in given.fields:
        for each, make in FEW.items():
            yield f"{name} {each}", one_field(caller, path, given, name, make), BODY // 2
    packed = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
    # A thousand times as long once it is unpacked.
    yield (
        "packed",
        posted(caller, path, lambda size: zlib.compress(b" " * size * 1000), packed),
        BODY,
    )


def encoded(make: Callable[[int], str]) -> Callable[[int], bytes]:
    return lambda size: make(size).encode()


def posted(
    caller: Caller, path: str, make: Callable[[int], bytes], headers: Mapping[str, str]
) -> AsyncCost:
    return lambda size: caller.cost("post", path, headers, make(size))


def one_field(
    caller: Caller, path: str, given: Given, name: str, make: Callable[[int], str]
) -> AsyncCost:
    return lambda size: caller.cost("post", path, *in_field(given, name, make(size)))


ATTACKS: dict[str, tuple[str, dict[str, str], bytes]] = {
    "multipart": (
        "/api/leads",
        {"Content-Type": "multipart/form-data; boundary=x"},
        MULTIPARTS["semicolons"](60_000).encode(),
    ),
    "nested": (
        "/api/leads",
        {"Content-Type": "multipart/form-data; boundary=x"},
        MULTIPARTS["nested deep"](60_000).encode(),
    ),
    "content type": ("/api/chatbot/chat", {"Content-Type": "application/json" + ";" * 8000}, b"{}"),
    "codec": (
        "/console/login",
        {"Content-Type": "application/x-www-form-urlencoded; charset=punycode"},
        b"a" * 60_000,
    ),
    "numbers": (
        "/api/chatbot/chat",
        {"Content-Type": "application/json"},
        json.dumps({"message": "35 " * 1300, "session_id": "s"}).encode(),
    ),
}


NEIGHBOURS = ("/api/health", "/transcript?token=x", "/unsubscribe?token=x", "/console/login")
"""A call of each service."""


@pytest.mark.parametrize("name", ATTACKS)
async def test_nobody_else_waits_for_it(caller: Caller, stack: Stack, name: str) -> None:
    path, headers, body = ATTACKS[name]
    loop = asyncio.get_running_loop()

    async def neighbours() -> float:
        start = loop.time()
        await asyncio.gather(*(stack.http("GET", each) for each in NEIGHBOURS))
        return loop.time() - start

    usual = sorted([await neighbours() for _ in range(TRIES)])[TRIES // 2]
    waited = []
    for _ in range(TRIES):
        attack = asyncio.ensure_future(caller.cost("post", path, headers, body))
        await asyncio.sleep(0.002)  # it is on its way
        waited.append(await neighbours())
        await attack
    most = 2 * usual + 2 * effort.MOST_SECONDS * effort.slowness()
    assert sorted(waited)[TRIES // 2] < most, (usual, waited)
    assert caller.statuses.keys().isdisjoint({500, 502, 503, 504})
