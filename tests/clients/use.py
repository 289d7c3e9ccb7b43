"""What a company's own program would do with the generated client; only checked, never run."""

from io import BytesIO

from ostoja_client import AuthenticatedClient
from ostoja_client.api.alerts import post_alert
from ostoja_client.api.follow_ups import import_leads
from ostoja_client.models import (
    AlertAccepted,
    AlertRequest,
    AlertRequestPayload,
    ImportReport,
    Problem,
)
from ostoja_client.types import File


def alert(client: AuthenticatedClient, text: str) -> str:
    payload = AlertRequestPayload.from_dict({"text": text, "anything": {"else": [1, 2]}})
    body = AlertRequest(event_type="slack_alert", payload=payload)
    accepted = post_alert.sync(client=client, body=body)
    assert isinstance(accepted, AlertAccepted)
    return str(accepted.id)


def leads(client: AuthenticatedClient, csv: bytes) -> ImportReport | Problem | None:
    return import_leads.sync(client=client, body=File(payload=BytesIO(csv)))
