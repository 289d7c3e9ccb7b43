"""One mail, and how Mailpit's API describes it."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import Message
from email.utils import getaddresses, parseaddr
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")

SNIPPET = 250
_TAG = re.compile(r"<style.*?</style>|<script.*?</script>|<[^>]*>", re.DOTALL | re.IGNORECASE)


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

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Mailpit's MessageSummary, as far as something reads it, but for what changes."""
        read = _Read(self.raw)
        shown, address = parseaddr(read.header("From"))
        people = {
            name.replace("-", ""): [
                {"Name": shown, "Address": address}
                for shown, address in getaddresses([read.header(name)])
                if address
            ]
            for name in ("To", "Cc", "Reply-To")
        }
        return {
            "ID": self.id,
            "MessageID": read.header("Message-ID").strip("<> "),
            "Created": stamp(self.created),
            "From": {"Name": shown, "Address": address or self.sender},
            **people,
            "Subject": read.header("Subject"),
            "Snippet": " ".join((read.text or _TAG.sub(" ", read.html)).split())[:SNIPPET],
        }

    def message(self) -> dict[str, Any]:
        """Return Mailpit's Message, likewise."""
        read = _Read(self.raw)
        unsubscribe = {
            "Header": read.header("List-Unsubscribe"),
            "HeaderPost": read.header("List-Unsubscribe-Post"),
        }
        return {
            **self.summary,
            "ReturnPath": self.sender,
            "ListUnsubscribe": unsubscribe,
            "Text": read.text,
            "HTML": read.html,
        }


class _Read:
    """The message as a reader sees it; a broken part is empty and does not hide the others.

    It uses the email package's compat32 policy: the default one is five times slower and no better
    on broken mail.
    """

    def __init__(self, raw: bytes) -> None:
        self.message: Message = _tried(lambda: message_from_bytes(raw), Message())
        self.text = self.html = ""
        for part in _tried(lambda: list(self.message.walk()), ()):
            kind = part.get_content_type()
            if part.get_content_disposition() == "attachment":
                continue
            if kind == "text/plain" and not self.text:
                self.text = _content(part)
            elif kind == "text/html" and not self.html:
                self.html = _content(part)

    def header(self, name: str) -> str:
        raw = _tried(lambda: str(self.message.get(name, "")), "")
        unfolded = "".join(raw.splitlines())
        return plain(_tried(lambda: str(make_header(decode_header(unfolded))), unfolded))


def _content(part: Message) -> str:
    payload = _tried(lambda: part.get_payload(decode=True), b"")
    if not isinstance(payload, bytes):
        return ""
    charset = part.get_content_charset() or "utf-8"
    return _tried(lambda: payload.decode(charset, "replace"), payload.decode("utf-8", "replace"))


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
