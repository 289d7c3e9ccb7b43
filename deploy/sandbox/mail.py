"""One mail, and how Mailpit's API describes it."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from email.utils import getaddresses, parseaddr, parsedate_to_datetime
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")

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

    def as_received(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Return headers and body for the sandbox's own API."""
        read = _Read(self.raw)
        headers = {name.lower(): read.header(name) for name in reversed(read.message.keys())}
        return headers, {
            "id": self.id,
            "mail_from": self.sender,
            "rcpt_tos": list(self.recipients),
            "subject": read.header("Subject"),
            "text": read.text,
            "html": read.html,
        }

    def summary(self) -> dict[str, Any]:
        """Return Mailpit's MessageSummary."""
        return {"Read": self.read, "Created": stamp(self.created), **self._summary}

    @cached_property
    def _summary(self) -> dict[str, Any]:
        read = _Read(self.raw)
        return {
            **self._described(read),
            "Attachments": len(read.attachments),
            "Snippet": " ".join((read.text or _TAG.sub(" ", read.html)).split())[:SNIPPET],
        }

    def message(self) -> dict[str, Any]:
        """Return Mailpit's Message."""
        read = _Read(self.raw)
        unsubscribe = read.header("List-Unsubscribe")
        return {
            **self._described(read),
            "ReturnPath": self.sender,
            "ListUnsubscribe": {
                "Header": unsubscribe,
                "Links": _LINK.findall(unsubscribe),
                "HeaderPost": read.header("List-Unsubscribe-Post"),
            },
            "Date": stamp(read.date or self.created),
            "Text": read.text,
            "HTML": read.html,
            "Attachments": read.attachments,
        }

    def _described(self, read: "_Read") -> dict[str, Any]:
        """Return what both have."""
        people = {
            name.replace("-", ""): [
                {"Name": shown, "Address": address}
                for shown, address in getaddresses([read.header(name)])
                if address
            ]
            for name in ("To", "Cc", "Bcc", "Reply-To")
        }
        named = {each["Address"].lower() for name in ("To", "Cc", "Bcc") for each in people[name]}
        # Like Mailpit: an address that is only in the envelope is a blind copy.
        people["Bcc"] += [
            {"Name": "", "Address": address}
            for address in self.recipients
            if address.lower() not in named
        ]
        shown, address = parseaddr(read.header("From"))
        return {
            "ID": self.id,
            "MessageID": read.header("Message-ID").strip("<> "),
            "From": {"Name": shown, "Address": address or self.sender},
            **people,
            "Subject": read.header("Subject"),
            "Size": self.size,
        }


class _Read:
    """The message as a reader sees it; a broken part is empty and does not hide the others.

    It uses the email package's compat32 policy: the default one is five times slower and no better
    on broken mail.
    """

    def __init__(self, raw: bytes) -> None:
        self.message: Message = _tried(lambda: message_from_bytes(raw), Message())
        self.text = self.html = ""
        self.attachments: list[dict[str, Any]] = []
        for part in _tried(lambda: list(self.message.walk()), ()):
            if part.is_multipart():
                continue
            kind = part.get_content_type()
            attached = part.get_content_disposition() == "attachment"
            if kind == "text/plain" and not attached and not self.text:
                self.text = _content(part)
            elif kind == "text/html" and not attached and not self.html:
                self.html = _content(part)
            else:
                self.attachments.append(_attachment(part))

    def header(self, name: str) -> str:
        return _header(self.message, name)

    @property
    def date(self) -> datetime | None:
        date = _tried(lambda: parsedate_to_datetime(self.header("Date")), None)
        return date if date is None or date.tzinfo else date.replace(tzinfo=UTC)


def _attachment(part: Message) -> dict[str, Any]:
    return {
        "FileName": plain(_tried(part.get_filename, None) or ""),
        "ContentType": part.get_content_type(),
        "Size": len(_payload(part)),
    }


def _payload(part: Message) -> bytes:
    payload = _tried(lambda: part.get_payload(decode=True), b"")
    return payload if isinstance(payload, bytes) else b""


def _content(part: Message) -> str:
    payload = _payload(part)
    charset = part.get_content_charset() or "utf-8"
    return _tried(lambda: payload.decode(charset, "replace"), payload.decode("utf-8", "replace"))


def _header(message: Message, name: str) -> str:
    raw = _tried(lambda: str(message.get(name, "")), "")
    unfolded = "".join(raw.splitlines())
    return plain(_tried(lambda: str(make_header(decode_header(unfolded))), unfolded))


def _tried(read: Callable[[], T], otherwise: U) -> T | U:
    try:
        return read()
    except Exception:  # noqa: BLE001 - the package raises whatever it trips over in a broken mail
        return otherwise


def plain(text: str) -> str:
    """Replace lone surrogates (undecodable bytes), which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def stamp(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
