"""One mail, and how Mailpit's API describes it."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses, parseaddr, parsedate_to_datetime
from functools import cached_property
from typing import Any

SNIPPET = 250
_TAG = re.compile(r"<style.*?</style>|<script.*?</script>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_LINK = re.compile(r"<((?:https?|mailto):[^>\s]+)>", re.IGNORECASE)


@dataclass
class Mail:
    sender: str
    recipients: Sequence[str]
    raw: bytes
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    read: bool = False

    @property
    def size(self) -> int:
        return len(self.raw)

    def headers(self) -> dict[str, str]:
        message = _parse(self.raw)
        return {name.lower(): _header(message, name) for name in reversed(message.keys())}

    def as_received(self) -> dict[str, Any]:
        message = _parse(self.raw)
        return {
            "id": self.id,
            "mail_from": self.sender,
            "rcpt_tos": list(self.recipients),
            "subject": _header(message, "Subject"),
            "text": _part(message, "plain"),
            "html": _part(message, "html"),
        }

    def summary(self) -> dict[str, Any]:
        """Return Mailpit's MessageSummary."""
        return {
            "ID": self.id,
            "Read": self.read,
            "Created": _rfc3339(self.created),
            "Username": "",
            "Tags": [],
            "Size": self.size,
            **self._summary,
        }

    @cached_property
    def _summary(self) -> dict[str, Any]:
        message = _parse(self.raw)
        text = _part(message, "plain") or _TAG.sub(" ", _part(message, "html"))
        return {
            **self._addresses(message),
            "MessageID": _header(message, "Message-ID").strip("<> "),
            "Subject": _header(message, "Subject"),
            "Attachments": sum(1 for _ in message.iter_attachments()),
            "Snippet": " ".join(text.split())[:SNIPPET],
        }

    def message(self) -> dict[str, Any]:
        """Return Mailpit's Message."""
        message = _parse(self.raw)
        unsubscribe = _header(message, "List-Unsubscribe")
        return {
            **self._addresses(message),
            "ID": self.id,
            "MessageID": _header(message, "Message-ID").strip("<> "),
            "ReturnPath": self.sender,
            "Subject": _header(message, "Subject"),
            "ListUnsubscribe": {
                "Header": unsubscribe,
                "Links": _LINK.findall(unsubscribe),
                "Errors": "",
                "HeaderPost": _header(message, "List-Unsubscribe-Post"),
            },
            "Date": _rfc3339(self._date(message)),
            "Tags": [],
            "Username": "",
            "Text": _part(message, "plain"),
            "HTML": _part(message, "html"),
            "Size": self.size,
            "Inline": [],
            "Attachments": [
                {
                    "PartID": str(number),
                    "FileName": part.get_filename() or "",
                    "ContentType": part.get_content_type(),
                    "ContentID": _header(part, "Content-ID").strip("<> "),
                    "Size": len(part.get_payload(decode=True) or b""),
                }
                for number, part in enumerate(message.iter_attachments(), 1)
            ],
        }

    def _addresses(self, message: EmailMessage) -> dict[str, Any]:
        lists = {
            name: [
                {"Name": shown, "Address": address}
                for shown, address in getaddresses([_header(message, header)])
                if address
            ]
            for name, header in (
                ("To", "To"),
                ("Cc", "Cc"),
                ("Bcc", "Bcc"),
                ("ReplyTo", "Reply-To"),
            )
        }
        named = {item["Address"].lower() for name in ("To", "Cc", "Bcc") for item in lists[name]}
        # Like Mailpit: who is in the envelope only was a blind copy.
        lists["Bcc"] += [
            {"Name": "", "Address": address}
            for address in self.recipients
            if address.lower() not in named
        ]
        shown, address = parseaddr(_header(message, "From"))
        return {"From": {"Name": shown, "Address": address or self.sender}, **lists}

    def _date(self, message: EmailMessage) -> datetime:
        try:
            date = parsedate_to_datetime(_header(message, "Date"))
        except ValueError:
            return self.created
        return date if date.tzinfo else date.replace(tzinfo=UTC)


def _parse(raw: bytes) -> EmailMessage:
    return message_from_bytes(raw, _class=EmailMessage, policy=policy.default)


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message.get(name, ""))
    except Exception:  # noqa: BLE001 - the parser raises whatever it trips over in a broken header
        return ""


def _part(message: EmailMessage, subtype: str) -> str:
    try:
        part = message.get_body((subtype,))
        return "" if part is None else str(part.get_content())
    except (LookupError, ValueError):  # an unknown charset
        return ""


def _rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
