"""One mail, and how Mailpit's API describes it."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses, parseaddr, parsedate_to_datetime
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")

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
            "Attachments": len(_attachments(message)),
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
            "Attachments": _attachments(message),
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
    return _tried(
        lambda: message_from_bytes(raw, _class=EmailMessage, policy=policy.default), EmailMessage()
    )


def _header(message: EmailMessage, name: str) -> str:
    return plain(_tried(lambda: str(message.get(name, "")), ""))


def _part(message: EmailMessage, subtype: str) -> str:
    def read() -> str:
        part = message.get_body((subtype,))
        return "" if part is None else str(part.get_content())

    return plain(_tried(read, ""))


def _attachments(message: EmailMessage) -> list[dict[str, Any]]:
    def read() -> list[dict[str, Any]]:
        return [
            {
                "PartID": str(number),
                "FileName": plain(part.get_filename() or ""),
                "ContentType": part.get_content_type(),
                "ContentID": _header(part, "Content-ID").strip("<> "),
                "Size": len(part.get_payload(decode=True) or b""),
            }
            for number, part in enumerate(message.iter_attachments(), 1)
        ]

    return _tried(read, [])


def _tried(read: Callable[[], T], otherwise: T) -> T:
    """One broken mail must not hide the others: the email package raises what it trips over."""
    try:
        return read()
    except Exception:  # noqa: BLE001
        return otherwise


def plain(text: str) -> str:
    """Replace the lone surrogates that stand for undecodable bytes; UTF-8 cannot carry them."""
    return text.encode("utf-8", "replace").decode()


def _rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
