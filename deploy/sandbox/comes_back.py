"""Mail that comes back about one that the sandbox took, as a mail server or a person would send it.

comes_back/<kind>.eml are a bounce (RFC 3464), a complaint (RFC 5965) and a reply.
"""

from email import message_from_bytes
from email.utils import formatdate, make_msgid, parseaddr
from pathlib import Path
from string import Template

_MAILS = {
    file.stem: Template(file.read_text(encoding="utf-8"))
    for file in Path(__file__).with_suffix("").glob("*.eml")
}
KINDS = sorted(_MAILS)


def mail(kind: str, raw: bytes, return_path: str) -> bytes:
    """Return a new mail of this kind about one that was sent.

    :param return_path: its envelope sender; where a bounce goes
    """
    sent = message_from_bytes(raw)
    return (
        _MAILS[kind]
        .substitute(
            now=formatdate(),
            id=make_msgid(domain="sandbox.example"),
            return_path=return_path,
            recipient=parseaddr(sent["To"])[1],
            answers_to=sent["Reply-To"] or sent["From"],
            subject=sent["Subject"],
            sent_id=sent["Message-ID"],
            headers="".join(f"{name}: {value}\n" for name, value in sent.items()),
        )
        .encode()
    )
