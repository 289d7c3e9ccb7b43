"""What Postmark, Mailgun and Amazon SES report of a mail, by webhook. Each says it in its own way.

A report comes with a key, so it is believed about its recipient; a mail is not (`reader.py`).
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

from libs.common.http.application import Problem, check_json
from libs.domain.email_address import MalformedEmail, normalise
from services.followups.inbox.reader import SOFT, WORDS, Kind, Read

Provider = Literal["postmark", "mailgun", "ses"]
_Report = tuple[Kind, str, str, str]
"""What happened, the recipient, how the provider says it, and its name of the event."""
_NOTHING = Read("", "auto", "", "", "", stops=False, files=[], tokens=[], steps=[], status="")


def reports(provider: Provider, data: Any) -> list[Read]:
    """Read what is of use; what is delivered, opened or clicked is not. A key names an event.

    :raises Problem: 422 it is not what the provider documents
    """
    try:
        return [
            _NOTHING._replace(
                kind="soft" if kind == "hard" and str(status).startswith(SOFT) else kind,
                recipient=normalise(email),
                status=str(status)[:100],
                key=hashlib.sha256(f"{provider} {event} {email}".encode()).hexdigest(),
            )
            for kind, email, status, event in _READERS[provider](data)
        ]
    except (AttributeError, KeyError, TypeError, MalformedEmail) as error:
        raise Problem(422, detail=f"no webhook of {provider}: {error}"[:200]) from None


def confirmation(provider: Provider, data: Any) -> str | None:
    """Return the address that a person must open once, before SNS sends reports."""
    if provider != "ses" or not isinstance(data, dict):
        return None
    asks = data.get("Type") == "SubscriptionConfirmation" and "SubscribeURL" in data
    return str(data["SubscribeURL"])[:2000] if asks else None


def _postmark(data: Any) -> Iterator[_Report]:
    kind = WORDS["postmark"].get(data.get("Type", data["RecordType"]))
    if kind is not None:
        yield kind, data["Email"], data["Type"], data["ID"]


def _mailgun(data: Any) -> Iterator[_Report]:
    event = data["event-data"]
    kind = WORDS["mailgun"].get(event["event"])
    if event["event"] == "failed":
        kind = "hard" if event["severity"] == "permanent" else "soft"
    if kind is not None:
        status = event.get("delivery-status", {})
        said = str(status.get("enhanced-code") or status.get("code") or kind)
        yield kind, event["recipient"], said, event["id"]


def _ses(data: Any) -> Iterator[_Report]:
    if data["Type"] != "Notification":
        return
    said = check_json(data["Message"].encode())
    match said.get("notificationType", said.get("eventType")):
        case "Bounce":
            bounce = said["bounce"]
            kind: Kind = "hard" if bounce["bounceType"] == "Permanent" else "soft"
            for each in bounce["bouncedRecipients"]:
                status = each.get("status", bounce["bounceSubType"])
                yield kind, each["emailAddress"], status, bounce["feedbackId"]
        case "Complaint":
            complaint = said["complaint"]
            for each in complaint["complainedRecipients"]:
                yield "complaint", each["emailAddress"], "complaint", complaint["feedbackId"]


_READERS = {"postmark": _postmark, "mailgun": _mailgun, "ses": _ses}
