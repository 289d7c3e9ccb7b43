"""Any web hook, signed per Standard Webhooks: its id lets a receiver drop a twin."""

import json
from datetime import UTC, datetime

from standardwebhooks import Webhook as Signer

from services.alerts.alert import Claimed, Outcome
from services.alerts.channels.network import Network
from services.alerts.channels.post import Poster
from services.alerts.config import WebhookTarget
from services.alerts.templates import Templates


class Webhook:
    def __init__(
        self, name: str, target: WebhookTarget, templates: Templates, network: Network
    ) -> None:
        self._name = name
        self._signer = Signer(target.secret.get_secret_value())
        self._templates = templates
        self._poster = Poster(target, target.url.get_secret_value(), network)

    async def send(self, job: Claimed) -> Outcome:
        body = self._templates.render(self._name, job) or json.dumps(
            {
                "type": job.event_type,
                "timestamp": job.accepted_at.isoformat(),
                "data": job.payload,
                "id": str(job.alert_id),
                "severity": job.severity,
            },
            ensure_ascii=False,
        )
        now = datetime.now(UTC)
        headers = {
            "webhook-id": str(job.alert_id),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(str(job.alert_id), now, body),
        }
        return (await self._poster.post(body.encode(), headers)).outcome

    async def close(self) -> None:
        await self._poster.close()
