"""What a company's own program would do with the generated client: `use.py URL KEY`."""

import json
import sys
import uuid
from io import BytesIO

from ostoja_client import AuthenticatedClient
from ostoja_client.api.alerts import post_alert
from ostoja_client.api.follow_ups import import_leads
from ostoja_client.api.forms import get_form, submit_lead
from ostoja_client.models import (
    AlertAccepted,
    AlertRequest,
    AlertRequestPayload,
    Form,
    GetFormLanguage,
    ImportReport,
    LeadAccepted,
    LeadSubmission,
    LeadSubmissionFields,
    LeadSubmissionLanguage,
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


def form(client: AuthenticatedClient) -> list[str]:
    shown = get_form.sync("contact", client=client, language=GetFormLanguage.PL)
    assert isinstance(shown, Form)
    return [field.name for field in shown.fields]


def lead(client: AuthenticatedClient, email: str) -> str:
    body = LeadSubmission(
        form="contact",
        language=LeadSubmissionLanguage.PL,
        fields=LeadSubmissionFields.from_dict({"email": email}),
    )
    accepted = submit_lead.sync(client=client, body=body, idempotency_key=uuid.uuid4().hex)
    assert isinstance(accepted, LeadAccepted)
    return str(accepted.id)


if __name__ == "__main__":
    url, key, email = sys.argv[1:]
    ostoja = AuthenticatedClient(url, key, prefix="", auth_header_name="X-API-KEY")
    said = {"alert": alert(ostoja, email), "form": form(ostoja), "lead": lead(ostoja, email)}
    sys.stdout.write(json.dumps(said))
