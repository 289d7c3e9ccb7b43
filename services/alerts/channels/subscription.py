"""A subscription: a webhook whose address and secrets are rows instead of lines of alerts.toml."""

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Self

from yarl import URL

from services.alerts.channels.channel import FromEnv
from services.alerts.channels.network import Networks, allowed
from services.alerts.channels.webhook import Webhook, WebhookTarget
from services.alerts.rules.delivery import Claimed, Kind, Outcome, Reason

DAY = 24 * 3600.0


class SubscriptionTarget(WebhookTarget):
    waits_in_ledger = True

    @classmethod
    def of(cls, url: str, secrets: list[str]) -> Self:
        """:param secrets: one, or two that both sign"""
        return cls(
            channel="webhook",
            url=FromEnv(url),
            secret=FromEnv(" ".join(secrets)),
            timeout=8,
            margin=2,
            concurrency=4,
            retry_delays=(5, 60, 600, 3600, 6 * 3600, DAY),
            max_age=5 * DAY,
        )

    @property
    def encrypted(self) -> bool:
        """Whether others may read what it gets; in clear it must stay in a private network."""
        return self.url.get_secret_value().lower().startswith("https://")


class Subscription(Webhook):
    def _body(self, job: Claimed) -> str:
        at = job.accepted_at.isoformat()
        body = {"type": job.event_type, "id": str(job.alert_id), "timestamp": at}
        return json.dumps(body | job.payload, ensure_ascii=False)

    async def send(self, job: Claimed) -> Outcome:
        """Retry what a target of the company would hold; a receiver that wants no more says 410."""
        outcome = await super().send(job)
        if outcome.status == HTTPStatus.GONE:
            return replace(outcome, kind=Kind.NEVER, reason=Reason.GONE)
        if outcome.kind in {Kind.HELD, Kind.NEVER}:
            return replace(outcome, kind=Kind.FAILED, reason=Reason.REFUSED)
        return outcome


def fault(url: str, private: Networks) -> str | None:
    """Return what is wrong with an address; that of a name is checked at each connection."""
    parsed = URL(url)
    public, host = parsed.scheme == "https", parsed.host or ""
    if not public and not private:
        return "must begin with https://"
    if parsed.user or parsed.password or parsed.fragment:
        return "must name no user, password or fragment"
    is_numeric = ":" in host or host.replace(".", "").isdecimal()
    if is_numeric and not allowed(host, private, public=public):
        return "must be on the public internet"
    return None
