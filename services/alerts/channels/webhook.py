"""Any webhook, signed per Standard Webhooks; its id lets a receiver drop duplicates."""

import json
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, SecretStr
from standardwebhooks import Webhook as Signer
from standardwebhooks.webhooks import EmptyWebhookSecretError

from services.alerts.channels.channel import Secret, SecretUrl
from services.alerts.channels.post import HttpChannel, HttpTarget
from services.alerts.rules.delivery import Claimed, Outcome

MOST_KEYS = 2


def _signers(value: SecretStr) -> list[Signer]:
    return list(map(Signer, value.get_secret_value().split()))


def _signing_keys(value: SecretStr) -> SecretStr:
    try:
        count = len(_signers(value))
    except (ValueError, EmptyWebhookSecretError):
        count = 0
    if not 1 <= count <= MOST_KEYS:
        text = "must be whsec_ and base64, as Standard Webhooks says; or two, with a space between"
        raise ValueError(text)
    return value


class WebhookTarget(HttpTarget):
    read_by_people = False
    identity = ("url", "secret")

    channel: Literal["webhook"]
    url: SecretUrl
    secret: Annotated[Secret, AfterValidator(_signing_keys)]
    """Or two, which both sign, while the receiver changes from one to the other."""


class Webhook(HttpChannel[WebhookTarget], section=WebhookTarget):
    @cached_property
    def _signers(self) -> list[Signer]:
        return _signers(self._target.secret)

    async def send(self, job: Claimed) -> Outcome:
        body = self._body(job)
        now, id_ = datetime.now(UTC), str(job.alert_id)
        headers = {
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(each.sign(id_, now, body) for each in self._signers),
        }
        return (await self._poster.post(body.encode(), headers)).outcome

    def _body(self, job: Claimed) -> str:
        return self._templates.render(self._name, job) or json.dumps(
            {
                "type": job.event_type,
                "timestamp": job.accepted_at.isoformat(),
                "data": job.payload,
                "id": str(job.alert_id),
                "severity": job.severity,
            },
            ensure_ascii=False,
        )
