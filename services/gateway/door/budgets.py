"""Budgets that callers without a key share, because a botnet stays below the limit of each address.

A request is charged once it is known to be valid, before it has an effect, and given back if it has
none. So what is refused spends nothing of what all share, and a budget is never exceeded. No
network (/24, IPv6 /48) gets more than a twentieth of one (docs/decisions/0048). A request that is
forwarded and has arrived whole is charged in the call that decides its limits (0070).
"""

from libs.common.process.logs import log
from services.gateway import metrics
from services.gateway.door.clients import Client, Role, network_of
from services.gateway.door.limits import Decision, Limiter, Window

MOST = 0.8
"""The share of a budget at which an alert fires, before anyone is refused."""
UNKNOWN = frozenset({502, 504})
"""Statuses of a request that may have had its effect although its service gave no answer."""


class Budgets:
    def __init__(self, limiter: Limiter, *, shadow: bool) -> None:
        self._limiter = limiter
        self._shadow = shadow

    async def charge(
        self,
        client: Client,
        name: str,
        window: Window,
        key: str | None = None,
        *,
        made: Decision | None = None,
    ) -> Decision | None:
        """Charge a request; None: nothing is charged and nothing is refused.

        :param key: what distinguishes it from other budgets of this name
        :param made: its charge, if the decision about its limits made it
        """
        if client.role is not Role.PUBLIC:
            return None
        charge = made or await self._limiter.charge(
            name, key or name, window, network_of(client.ip)
        )
        used = charge.uses[0]
        share = "all" if used.exhausted else "most" if used.used >= MOST * window.quota else "low"
        metrics.BUDGET_REQUESTS.labels(name, share).inc()
        if self._shadow and not charge.admitted:
            log.info("limits.would_refuse", policy=name)
            return None
        return charge

    async def settle(self, charge: Decision | None, status: int) -> None:
        """Give a charge back if the request was answered with an error."""
        if charge is not None and charge.admitted and status >= 400 and status not in UNKNOWN:
            await self._limiter.refund(charge)
