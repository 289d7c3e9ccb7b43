"""Checks that mail programs will show "unsubscribe" for a mail, as it was received.

They do only if the relay's DKIM signature covers both List-Unsubscribe headers (RFC 8058, section
4). The relay signs, so only a received mail has the signature. This checks what the signature
covers; the mailbox's own Authentication-Results header says whether it verifies.
"""

import re
from collections.abc import Mapping
from email import message_from_bytes
from email.utils import parseaddr

COVERED = ("from", "list-unsubscribe", "list-unsubscribe-post")
SIGN = "let the relay sign From, List-Unsubscribe and List-Unsubscribe-Post (h= of DKIM-Signature)"


def check(received: bytes) -> tuple[str, str]:
    """Return what is wrong, and how to correct it; nothing to correct if nothing is wrong."""
    mail = message_from_bytes(received)
    if missing := [name for name in COVERED if name not in mail]:
        return f"the mail has no {', '.join(missing)}", "use an unmodified follow-up"
    signatures = [_tags(str(each)) for each in mail.get_all("DKIM-Signature", [])]
    if not signatures:
        return "the mail has no DKIM-Signature", SIGN
    domain = parseaddr(str(mail["From"]))[1].rpartition("@")[2].lower()
    aligned = [tags for tags in signatures if _aligned(tags.get("d", "").lower(), domain)]
    if not aligned:
        signers = ", ".join(sorted({tags.get("d", "unknown") for tags in signatures}))
        return f"signed by {signers}, not by {domain}", f"have the relay sign for {domain}"
    if uncovered := min((_uncovered(tags) for tags in aligned), key=len):
        return f"the signature does not cover {', '.join(uncovered)}", SIGN
    return f"the signature of {domain} covers both headers", ""


def _tags(signature: str) -> dict[str, str]:
    pairs = (tag.partition("=") for tag in re.sub(r"\s+", "", signature).split(";"))
    return {name: value for name, _, value in pairs if name}


def _aligned(signer: str, domain: str) -> bool:
    """Return whether it is the sender's domain, or a parent or subdomain of it (DMARC, relaxed)."""
    same = signer == domain
    return bool(signer) and (same or domain.endswith(f".{signer}") or signer.endswith(f".{domain}"))


def _uncovered(tags: Mapping[str, str]) -> list[str]:
    covered = tags.get("h", "").lower().split(":")
    return [name for name in COVERED if name not in covered]
