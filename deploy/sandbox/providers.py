"""The simulated HTTP providers, and the sandbox's own API."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time
from typing import Any, Literal
from urllib.parse import parse_qsl
from uuid import uuid4

from aiohttp import hdrs, web
from standardwebhooks import Webhook, WebhookVerificationError

from deploy.sandbox import slack
from deploy.sandbox.behaviour import (
    HEALTHY,
    Answer,
    Behaviour,
    Provider,
    hang_up,
    json_object,
)
from deploy.sandbox.recorder import MIB, Recorder
from libs.common.http.application import Model, Problem, json_response, parse, parse_query
from libs.common.http.application import create_app as create_web_app

_CALLS = ("create_item", "change_multiple_column_values", "items_page_by_column_values")
_CALL = re.compile(rf"\b(?P<name>{'|'.join(_CALLS)})\s*\((?P<arguments>[^()]*)\)")
_MOST_ITEMS = 10_000
_ARGUMENT = re.compile(r"(\w+)\s*:\s*\$(\w+)")
_NUMBER = re.compile(r"\+?\d{9,15}")


class Monday:
    """Items over GraphQL: errors come in the body of a 200."""

    def __init__(self) -> None:
        self._items: dict[str, tuple[str, dict[str, Any]]] = {}

    def __call__(self, request: web.Request, body: bytes) -> Answer:
        if not request.headers.get(hdrs.AUTHORIZATION):
            return Answer(401, '{"errors":["Not Authenticated"]}', accepted=False)
        asked = json_object(body) or {}
        call = _CALL.search(str(asked.get("query", "")))
        if call is None:
            return _monday_error(f"expected one of {', '.join(_CALLS)}", "GRAPHQL_PARSE_FAILED")
        variables = asked.get("variables") or {}
        named = _ARGUMENT.findall(call["arguments"])
        given = {name: variables.get(variable) for name, variable in named}
        board = str(given.get("board_id") or "")
        if not board.isdigit():
            return _monday_error("This board id is not valid", "InvalidBoardIdException")
        if call["name"] == "items_page_by_column_values":
            return self._find(board, given.get("columns"))
        return self._write(call["name"], board, given)

    def _find(self, board: str, columns: Any) -> Answer:
        try:
            wanted = {each["column_id"]: each["column_values"] for each in columns}
        except (KeyError, TypeError):
            return _monday_error("columns is a list of columns and values", "InvalidArgument")
        items = [
            {"id": item, "column_values": [{"id": c, "text": str(v)} for c, v in values.items()]}
            for item, (where, values) in self._items.items()
            if where == board and all(values.get(c) in v for c, v in wanted.items())
        ]
        data = {"data": {"items_page_by_column_values": {"items": items[:1]}}, "account_id": 1}
        return Answer(200, json.dumps(data), accepted=False)  # a query, not a message

    def _write(self, call: str, board: str, given: Mapping[str, Any]) -> Answer:
        name, item, values = (given.get(key) for key in ("item_name", "item_id", "column_values"))
        if call == "create_item":
            item = str(uuid4().int % 10**10)
            if not isinstance(name, str) or not 1 <= len(name) <= 255:
                return _monday_error(
                    "Item name must have 1 to 255 characters", "ItemNameTooLongException"
                )
        elif item not in self._items:
            return _monday_error("Item not found", "InvalidItemIdException")
        columns = json_object("{}" if values is None else values)
        if columns is None:
            return _monday_error(
                "column_values is a JSON object in a string", "ColumnValueException"
            )
        if any(not _monday_takes(value) for value in columns.values()):
            return _monday_error("invalid value: the phone's form", "ColumnValueException")

        def keep() -> None:
            _, before = self._items.pop(str(item), (board, {}))
            self._items[str(item)] = board, before | columns
            if len(self._items) > _MOST_ITEMS:
                del self._items[next(iter(self._items))]

        data = {"data": {call: {"id": item}}, "account_id": 1}
        return Answer(200, json.dumps(data), accepted=True, keep=keep)


def _monday_takes(value: Any) -> bool:
    """Check a phone column's documented format: digits, and two capital letters of the country."""
    if not isinstance(value, dict) or "phone" not in value:
        return True
    phone, country = str(value["phone"]), str(value.get("countryShortName"))
    return bool(_NUMBER.fullmatch(phone) and re.fullmatch("[A-Z]{2}", country))


def _monday_error(message: str, code: str) -> Answer:
    error = {"message": message, "path": ["create_item"], "extensions": {"code": code}}
    return Answer(200, json.dumps({"data": None, "errors": [error]}), accepted=False)


def sms(request: web.Request, body: bytes) -> Answer:
    """SMSAPI's `sms.do` with format=json: numbered errors come in the body of a 200."""
    if not request.headers.get(hdrs.AUTHORIZATION, "").startswith("Bearer "):
        return _sms_error(101, "Authorization failed")
    form = json_object(body)
    if form is None:
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
    if not (form.get("message") or form.get("text")):
        return _sms_error(11, "No message")
    to = str(form.get("to", ""))
    if not _NUMBER.fullmatch(to):
        return _sms_error(13, "No correct phone numbers")
    sent = {"id": uuid4().hex[:24].upper(), "points": 0.16, "number": to.lstrip("+")}
    sent |= {"date_sent": int(time()), "submitted_number": to, "status": "QUEUE", "error": None}
    return Answer(200, json.dumps({"count": 1, "list": [sent]}), accepted=True)


def _sms_error(code: int, message: str) -> Answer:
    return Answer(200, json.dumps({"error": code, "message": message}), accepted=False)


def webhook(_: web.Request, body: bytes) -> Answer:
    """Any webhook receiver; `_signed` checks the signature."""
    if json_object(body) is None:
        return Answer(400, '{"error":"not a JSON object"}', accepted=False)
    return Answer(200, '{"received":true}', accepted=True)


def _signed(secret: str) -> Provider:
    verifier = Webhook(secret)

    def signed(request: web.Request, body: bytes) -> Answer:
        try:
            verifier.verify(body, dict(request.headers), json_parse=False)
        except (WebhookVerificationError, ValueError):
            return Answer(401, '{"error":"the signature does not match"}', accepted=False)
        return webhook(request, body)

    return signed


def telegram(_: web.Request, body: bytes) -> Answer:
    """A bot's sendMessage, to a group: errors have a status and a description."""
    message = json_object(body) or {}
    error = None if str(message.get("chat_id")).startswith("-") else "chat not found"
    if not 1 <= len(str(message.get("text") or "")) <= 4096:
        error = "message text is empty or too long"
    if error is not None:
        said = {"ok": False, "error_code": 400, "description": f"Bad Request: {error}"}
        return Answer(400, json.dumps(said), accepted=False)
    return Answer(200, '{"ok":true,"result":{"message_id":1}}', accepted=True)


PROVIDERS: Mapping[str, Provider] = {
    "slack": slack.webhook,
    "slack_response": slack.response,
    "monday": Monday(),
    "sms": sms,
    "webhook": webhook,
    "subscriber": webhook,
    "telegram": telegram,
}
PATHS = {
    "slack_response": "/slack/response",
    "telegram": r"/telegram/bot{token:\d+:[\w-]+}/sendMessage",
}
"""Paths that differ from the target's name."""


def _misbehave(words: str, behaviour: Behaviour) -> Answer:
    """Answer as configured, in the target's own format for failures if it has one."""
    if behaviour.error is not None:
        match words:
            case "slack app":
                return slack.refused(behaviour.error)
            case "monday":
                return _monday_error(behaviour.error, "SandboxException")
            case "sms":
                return _sms_error(999, behaviour.error)
            case _:
                return Answer(200, behaviour.error, accepted=False, content_type="text/plain")
    status = behaviour.status or 500
    return Answer(status, f"told to answer {status}", accepted=False, content_type="text/plain")


def _raw(answer: Answer, headers: Mapping[str, str]) -> bytes:
    """Return the raw bytes of the answer, for behaviours that split it up."""
    body = answer.text.encode()
    lines = [f"HTTP/1.1 {answer.status} Sandbox", f"Content-Type: {answer.content_type}"]
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def create_app(
    recorder: Recorder, webhook_secret: str | None, slack_file: Path | None = None
) -> web.Application:
    """Create the application of the provider port.

    GET /slack   a page of what Slack got; `slack_file` keeps it over restarts
    POST /slack /slack/api/chat.postMessage /slack/api/chat.update
    POST /slack/press   presses a button of a message
    POST /slack/response/{token}   the response_url of a press; without a token, of no message
    POST /monday /sms /webhook /subscriber /telegram/bot{token}/sendMessage   the providers
    GET /received?target=[&all=true]   DELETE /received
    PUT /behaviour/{target}
    """
    app = create_web_app(internal_key=None, max_body=MIB)
    slack_app = slack.App(slack.Messages(slack_file))
    for target, provider in {**PROVIDERS, "slack": slack_app.webhook}.items():
        if target == "webhook" and webhook_secret:
            # Of two the old one, behind the new one: a receiver that has not changed yet.
            key = webhook_secret.split()[-1]
            provider = _signed(key)  # noqa: PLW2901 - the same, with its key
        path = PATHS.get(target, f"/{target}")
        app.router.add_post(path, _receiver(recorder, target, provider))
    app.router.add_get("/slack", slack_app.page)
    for method, write in (("postMessage", slack_app.post), ("update", slack_app.update)):
        receive = _receiver(recorder, "slack", write, "slack app")
        app.router.add_post(f"/slack/api/chat.{method}", receive)
    app.router.add_post("/slack/press", slack_app.press)

    respond = _receiver(recorder, "slack_response", slack_app.respond)
    app.router.add_post("/slack/response/{token}", respond)
    api = _Api(recorder)
    app.router.add_get("/received", api.received)
    app.router.add_delete("/received", api.forget)
    app.router.add_put("/behaviour/{target}", api.behave)
    return app


def _receiver(
    recorder: Recorder, target: str, provider: Provider, words: str | None = None
) -> Callable[[web.Request], Any]:
    """:param words: the format of failures, if not the target's own"""

    async def receive(request: web.Request) -> web.Response:
        body = await request.read()
        behaviour = recorder.take(target)
        answer = provider(request, body)
        accepted = answer.accepted and (behaviour.accepted or not behaviour.fails)
        if accepted:
            answer.keep()

        def record(answered: int | None) -> None:
            recorder.record(
                target, body, accepted=accepted, answered=answered, headers=request.raw_headers
            )

        if behaviour.fails and not behaviour.loses_answer:
            answer = _misbehave(words or target, behaviour)
        wait = behaviour.retry_after
        headers = {} if wait is None else {"Retry-After": str(wait)}
        raw = _raw(answer, headers)
        try:
            if behaviour.delay_seconds:
                await asyncio.sleep(behaviour.delay_seconds)
            if behaviour.drip_seconds:
                await _drip(request, behaviour.drip_seconds, raw[:-1])
        except asyncio.CancelledError:
            # The client gave up; a real provider would still have the message.
            record(None)
            raise
        record(None if behaviour.loses_answer else answer.status)
        if behaviour.hang:
            await asyncio.Event().wait()  # until the client leaves
        if behaviour.loses_answer or behaviour.drip_seconds:
            rest = raw[-1:] if behaviour.drip_seconds else raw[:-1] if behaviour.cut else b""
            _end(request, behaviour, rest)
        return web.Response(
            text=answer.text,
            status=answer.status,
            content_type=answer.content_type,
            headers=headers,
        )

    return receive


async def _drip(request: web.Request, seconds: float, raw: bytes) -> None:
    for byte in raw:
        if request.transport is not None:
            request.transport.write(bytes([byte]))
        await asyncio.sleep(seconds)


def _end(request: web.Request, behaviour: Behaviour, rest: bytes) -> None:
    if request.transport is not None:
        request.transport.write(rest)
        hang_up(request.transport, reset=behaviour.reset)


class _Asked(Model):
    target: str
    all: Literal["true", "false"] = "false"


class _Api:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def _target(self, name: str) -> str:
        if name not in (known := self._recorder.targets):
            raise Problem(404, detail=f"no such target; known are {', '.join(known)}")
        return name

    async def received(self, request: web.Request) -> web.Response:
        wanted = parse_query(request, _Asked)
        target, refused_too = self._target(wanted.target), wanted.all == "true"
        count, found = self._recorder.received(target, refused_too=refused_too)

        def render() -> bytes:
            # ASCII, because a body may contain lone surrogates, which UTF-8 cannot encode.
            return json.dumps(
                {"count": count, "received": [item.as_json() for item in found]}
            ).encode()

        # In a thread, because tens of thousands of requests must not delay the providers.
        body = await asyncio.to_thread(render)
        return web.Response(body=body, content_type="application/json")

    async def forget(self, _: web.Request) -> web.Response:
        return json_response({"deleted": self._recorder.forget()})

    async def behave(self, request: web.Request) -> web.Response:
        target = self._target(request.match_info["target"])
        behaviour = await parse(request, Behaviour)
        slow = behaviour.delay_seconds or behaviour.drip_seconds
        if not behaviour.fails and not slow:
            alone = {"status": 451 if target == "email" else 500}
            once = behaviour.fail_next is not None
            behaviour = behaviour.model_copy(update=alone) if once else HEALTHY
        self._recorder.behave(target, behaviour)
        return json_response(behaviour.model_dump(exclude_defaults=True))
