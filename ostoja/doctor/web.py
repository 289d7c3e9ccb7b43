"""The gateway and the services: running, healthy, and using the same key."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

from libs.common.process import certificates
from ostoja.api import opener
from ostoja.doctor.deployment import PATIENCE, RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, unknown, wrong

LOOK = "make status, make logs SERVICE={0}; or docker compose ps, docker compose logs {0}"


def check(deployment: Deployment, key: str) -> Iterator[Finding]:
    """:param key: the admin key that this tool sends"""
    yield from _gateway(deployment, key)
    for name, url in deployment.service_urls.items():
        response = ask(f"{url}/health", tls_dir=deployment.tls_dir)
        if response.status == 200:
            yield ok(name, f"answers at {url}")
        else:
            yield wrong(name, f"no answer at {url}: {response.summary}", LOOK.format(name))


def _gateway(deployment: Deployment, key: str) -> Iterator[Finding]:
    url = deployment.gateway
    response = ask(f"{url}/api/health")
    if response.status != 200:
        yield wrong("gateway", f"no answer at {url}: {response.summary}", LOOK.format("gateway"))
        return
    yield ok("gateway", f"answers at {url}")
    headers = {"X-ADMIN-API-KEY": key}
    response = ask(f"{url}/api/ratelimits", headers)
    if response.status == 401:
        yield wrong(
            "gateway",
            "it does not accept the admin key used here",
            f"{RESTART}: it runs with the .env of its last start",
        )
    elif response.status != 200:
        yield unknown(
            "gateway", f"cannot check whether it accepts the admin key: {response.summary}"
        )
    health = ask(f"{url}/api/health/deep", headers).body
    yield from _unhealthy(health)
    yield from _held(health)


def _held(health: Any) -> Iterator[Finding]:
    """Yield the targets that refuse us."""
    breakers = health.get("circuit_breakers", {}) if isinstance(health, dict) else {}
    for name, breaker in breakers.items():
        if isinstance(refused := breaker.get("paused"), str):
            settings = ", ".join(breaker.get("settings", ())) or f"[targets.{name}]"
            yield wrong(
                f"target {name}",
                f"{refused}, since {breaker.get('open_since')}; its alerts wait",
                f"correct what is wrong of {settings}, then {RESTART}; a start tries it at once",
            )


def _unhealthy(health: Any) -> Iterator[Finding]:
    """Yield the components that the gateway finds unhealthy."""
    components = health.get("components", {}) if isinstance(health, dict) else {}
    for name, component in components.items():
        if component["status"] == "healthy":
            continue
        parts = component.get("components", {}).items()
        failing = ", ".join(part for part, found in parts if found["status"] != "healthy")
        shown = f"the gateway finds it {component['status']}"
        if detail := component.get("detail") or (failing and f"{failing} is unavailable"):
            yield wrong(name, f"{shown}: {detail}", LOOK.format(name))
        else:
            yield wrong(name, f"{shown}: a target is unhealthy", "ostoja breakers, ostoja stats")


@dataclass(frozen=True, slots=True)
class Response:
    status: int | None
    body: Any = None
    """The decoded body, if it is JSON."""
    date: str = ""
    error: str = ""
    """Set if there is no status."""

    @property
    def summary(self) -> str:
        return f"HTTP status {self.status}" if self.status else self.error


def ask(
    url: str, headers: Mapping[str, str] | None = None, tls_dir: Path | None = None
) -> Response:
    """:param tls_dir: for https among our own servers; without, the machine's authorities"""
    try:
        request = Request(url, headers=dict(headers or {}))  # noqa: S310 - of our own settings
        tls = certificates.client(tls_dir) if tls_dir else None
        with opener(tls).open(request, timeout=PATIENCE) as opened:
            return Response(opened.status, _json(opened.read()), opened.headers.get("Date", ""))
    except HTTPError as error:
        with error:
            return Response(error.code, _json(error.read()))
    except (OSError, HTTPException, ValueError) as error:
        reason = str(getattr(error, "reason", None) or error)
        return Response(None, error=reason or type(error).__name__)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
