"""Pings of jobs, by a URL that alerts has signed: neither a key nor a database is needed."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aiohttp import web

from libs.common.http.application import Problem
from libs.common.messaging.broker import Message
from libs.common.process import logs
from libs.domain.signed_links import Claims, InvalidToken, Tokens
from services.gateway import metrics
from services.gateway.door.access import PING
from services.gateway.door.body_budget import BodyBudget
from services.gateway.intake.relayed import Relayed

LOG_BYTES = 10 * 1024


@dataclass(frozen=True, eq=False)
class PingRoutes:
    body_budget: BodyBudget
    relayed: Relayed
    tokens: Tokens | None

    async def take(self, request: web.Request) -> web.Response:
        """Answer 200 once the broker, or alerts, has it.

        A URL that was replaced or deleted gets 200, too: only alerts knows.
        """
        at, claims = datetime.now(UTC), self._claims(request.match_info["token"])
        signal = request.match_info.get("signal", "0")
        code = int(signal) if signal.isdecimal() else None
        kind = "success" if code == 0 else "start" if signal == "start" else "fail"
        ping = {
            "id": str(uuid4()),
            "heartbeat": claims.subject,
            "url_version": int(claims.purpose),
            "at": at.isoformat(),
            "kind": kind,
            "code": code if "signal" in request.match_info else None,
            "log": await self._log(request),
        }
        await self.relayed.hand_over(message(ping, logs.request_id.get() or ""))
        metrics.PINGS.labels(kind).inc()
        return web.Response(text="OK\n")

    def _claims(self, token: str) -> Claims:
        try:
            if self.tokens is not None:
                return self.tokens.verify(token, PING, datetime.now(UTC))
        except InvalidToken:
            pass
        raise Problem(404, detail="this is no ping URL")

    async def _log(self, request: web.Request) -> str | None:
        """Return the end of what the job says; too much of it is left out, but the ping counts."""
        try:
            body = await self.body_budget.read(request)
        except Problem as problem:
            if problem.status != 413:
                raise
            return "[a log over 256 KiB was left out]"
        return body[-LOG_BYTES:].decode(errors="replace").replace("\0", "") or None


def message(ping: dict[str, Any], request_id: str) -> Message:
    """Make `heartbeat.ping`; its golden form is tests/contracts/heartbeat.ping.json."""
    return Message(ping["id"], "heartbeat.ping", ping, request_id)
