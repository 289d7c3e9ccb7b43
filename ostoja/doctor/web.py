"""The gateway and the services: there, well, and of one mind about the key."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

from ostoja.api import opener
from ostoja.doctor.deployment import PATIENCE, RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, unknown, wrong

LOOK = "make status, make logs SERVICE={0}; or docker compose ps, docker compose logs {0}"


def check(deployment: Deployment, key: str) -> Iterator[Finding]:
    """:param key: the admin key that this tool sends"""
    yield from _gateway(deployment, key)
    for name, url in deployment.service_urls.items():
        answer = ask(f"{url}/health")
        if answer.status == 200:
            yield ok(name, f"answers at {url}")
        else:
            yield wrong(name, f"no answer at {url}: {answer.said}", LOOK.format(name))


def _gateway(deployment: Deployment, key: str) -> Iterator[Finding]:
    url = deployment.gateway
    answer = ask(f"{url}/api/health")
    if answer.status != 200:
        yield wrong("gateway", f"no answer at {url}: {answer.said}", LOOK.format("gateway"))
        return
    yield ok("gateway", f"answers at {url}")
    answer = ask(f"{url}/api/ratelimits", {"X-ADMIN-API-KEY": key})
    if answer.status == 401:
        yield wrong(
            "gateway",
            "it does not take the admin key that is used here",
            f"{RESTART}: it runs with what .env said when it was started",
        )
    elif answer.status != 200:
        yield unknown("gateway", f"whether it takes the admin key: {answer.said}")
    yield from _sick(ask(f"{url}/api/health/deep").body)


def _sick(health: Any) -> Iterator[Finding]:
    """What the gateway, from where it stands, cannot reach."""
    components = health.get("components", {}) if isinstance(health, dict) else {}
    for name, component in components.items():
        if component["status"] == "healthy":
            continue
        parts = component.get("components", {}).items()
        away = ", ".join(part for part, found in parts if found["status"] != "healthy")
        shown = f"the gateway finds it {component['status']}"
        if detail := component.get("detail") or (away and f"{away} is away"):
            yield wrong(name, f"{shown}: {detail}", LOOK.format(name))
        else:
            yield wrong(name, f"{shown}: a target is in trouble", "ostoja breakers, ostoja stats")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int | None
    body: Any = None
    """The JSON, if it is any."""
    date: str = ""
    why: str = ""
    """There is no status."""

    @property
    def said(self) -> str:
        return f"HTTP status {self.status}" if self.status else self.why


def ask(url: str, headers: Mapping[str, str] | None = None) -> Answer:
    try:
        request = Request(url, headers=dict(headers or {}))  # noqa: S310 - of our own settings
        with opener().open(request, timeout=PATIENCE) as answer:
            return Answer(answer.status, _json(answer.read()), answer.headers.get("Date", ""))
    except HTTPError as error:
        with error:
            return Answer(error.code, _json(error.read()))
    except (OSError, HTTPException, ValueError) as error:
        why = str(getattr(error, "reason", None) or error)
        return Answer(None, why=why or type(error).__name__)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
