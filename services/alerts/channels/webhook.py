"""Any webhook, signed per Standard Webhooks; its id lets a receiver drop duplicates."""

import json
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, SecretStr
from standardwebhooks import Webhook as Signer
from standardwebhooks.webhooks import EmptyWebhookSecretError

from services.alerts.channels.channel import Secret, SecretUrl
from services.alerts.channels.network import Network
from services.alerts.channels.post import HttpChannel, HttpTarget
from services.alerts.channels.templates import Templates
from services.alerts.rules.delivery import Claimed, Outcome


def _signing_key(value: SecretStr) -> SecretStr:
    try:
        Signer(value.get_secret_value())
    except (ValueError, EmptyWebhookSecretError):
        raise ValueError("must be whsec_ and base64, as Standard Webhooks says") from None
    return value


class WebhookTarget(HttpTarget):
    read_by_people = False
    identity = ("url", "secret")

    channel: Literal["webhook"]
    url: SecretUrl
    secret: Annotated[Secret, AfterValidator(_signing_key)]


class Webhook(HttpChannel[WebhookTarget], section=WebhookTarget):
    def __init__(
        self, name: str, target: WebhookTarget, templates: Templates, network: Network
    ) -> None:
        super().__init__(name, target, templates, network)
        self._signer = Signer(target.secret.get_secret_value())

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
