"""Events at a developer's machine: asked for, and posted there as a subscription would."""

import hmac
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from http.client import HTTPException
from secrets import token_bytes
from typing import Annotated, Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import typer

from ostoja.failure import Exit, Failure
from ostoja.where import Session

PATH = "/api/events"
POLL_SECONDS = 1.0
SECONDS = 8.0


def listen(
    context: typer.Context,
    forward: Annotated[str, typer.Option(help="http://localhost:3000/hook, for example.")],
    after: Annotated[str | None, typer.Option(help="A next_cursor; else from now on.")] = None,
) -> None:
    """Post each event to a program of yours as it comes, signed. End with Ctrl-C.

    No public address is needed. Nothing is tried again: a line shows what your program answered.
    """
    session: Session = context.obj
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
