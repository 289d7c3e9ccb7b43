"""Events at a developer's machine: asked for, and posted there as a subscription would."""

import hmac
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from http.client import HTTPException
from secrets import token_bytes
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import typer

from ostoja.commands import table
from ostoja.failure import Exit, Failure
from ostoja.where import Session

PATH = "/api/events"
POLL_SECONDS = 1.0
SECONDS = 8.0


def add_to(app: typer.Typer) -> None:
    table.add(app, "Targets and traffic", "events", do={"listen": listen})


def listen(session: Session, *, forward: str, after: str | None) -> None:
    if not forward.startswith(("http://", "https://")):
        raise Failure(Exit.USAGE, f"{forward} is not an http:// or https:// URL")
    secret = f"whsec_{b64encode(token_bytes(32)).decode()}"
    typer.echo(f"secret: {secret}")
    for event in _events(session, after):
        typer.echo(f"{event['type']} {event['id']} -> {_post(forward, event, secret)}")


def _events(session: Session, after: str | None) -> Iterator[dict[str, Any]]:
    cursor = after
    while True:
        page = session.api.get(PATH, after=cursor)
        yield from page["items"]
        cursor = page["next_cursor"]
        if not page["items"]:
            time.sleep(POLL_SECONDS)


def _post(url: str, event: dict[str, Any], secret: str) -> str:
    """Sign as Standard Webhooks says, and return what came back."""
    body, now = json.dumps(event, ensure_ascii=False), str(int(time.time()))
    key = b64decode(secret.removeprefix("whsec_"))
    signed = hmac.digest(key, f"{event['id']}.{now}.{body}".encode(), "sha256")
    headers = {
        "Content-Type": "application/json",
        "webhook-id": event["id"],
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{b64encode(signed).decode()}",
    }
    request = Request(url, body.encode(), headers, method="POST")  # noqa: S310 - checked above
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=SECONDS) as answer:
            return str(answer.status)
    except HTTPError as error:
        return str(error.code)
    except (OSError, HTTPException) as error:
        return f"{getattr(error, 'reason', None) or error}"
