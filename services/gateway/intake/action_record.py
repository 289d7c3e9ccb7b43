"""Records the gateway's own acts before they happen, as it has no transaction to record them in.

If neither the broker nor the console takes the record, nothing happens, except with ADMIN_API_KEY,
so that no one is locked out in an emergency (docs/decisions/0043).
"""

from aiohttp import hdrs, web

from libs.common.http.application import Problem
from libs.common.messaging.broker import Broker
from libs.common.process import logs
from libs.common.process.logs import log
from libs.domain.acts import ACTION_RECORD, EXCHANGE, Act
from services.gateway import metrics
from services.gateway.door.access import CONTEXT
from services.gateway.door.clients import Role
from services.gateway.intake.relayed import Relayed
from services.gateway.proxy.forward import outgoing_headers
from services.gateway.proxy.upstream import Upstream


class ActionRecord:
    def __init__(self, broker: Broker, console: Upstream | None) -> None:
        self._relayed: Relayed | None = None
        if console is not None:
            self._relayed = Relayed(
                broker,
                console,
                exchange=EXCHANGE,
                routing_key=ACTION_RECORD,
                path="/internal/actions",
            )

    async def intend(self, request: web.Request, action: str, kind: str, ref: str) -> None:
        """Return once it is recorded that this is about to be done.

        :raises Problem: 503, it is not recorded, so it must not be done
        """
        if self._relayed is None:  # there is no console to record it
            return
        client, request_id = request[CONTEXT].client, logs.request_id.get() or ""
        headers = outgoing_headers(request, client, request_id)
        act = Act.of(headers, action, kind, ref, outcome="intended")
        try:
            await self._relayed.hand_over(act.message())
        except Problem:
            if client.holder != Role.ADMIN:
                raise Problem(
                    503,
                    detail="nothing was changed: RabbitMQ and the console are unavailable, so it "
                    "could not be recorded who did it",
                    headers={hdrs.RETRY_AFTER: "5"},
                ) from None
            metrics.ACTS_UNRECORDED.inc()
            log.error("action.unrecorded", action=action, ref=ref, actor=str(act.actor))  # noqa: TRY400
