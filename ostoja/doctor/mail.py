"""Checks that mail addresses are real, and that mail programs will show "unsubscribe".

They do only if the relay's DKIM signature covers both List-Unsubscribe headers (RFC 8058, section
4). The relay signs, so only a received mail has the signature. This checks what the signature
covers; the mailbox's own Authentication-Results header says whether it verifies.
"""

import re
from collections.abc import Iterator, Mapping
from email import message_from_bytes
from email.message import Message
from email.utils import getaddresses, parseaddr

from deploy.check import ADDRESSES, RESERVED, is_production
from ostoja.doctor.deployment import RESTART
from ostoja.doctor.finding import Finding, ok, unknown, wrong

COVERED = ("from", "list-unsubscribe", "list-unsubscribe-post")
SIGN = "let the relay sign From, List-Unsubscribe and List-Unsubscribe-Post (h= of DKIM-Signature)"
SANDBOX = {
    "",
    "sandbox",
    "mailpit",
}  # hosts of the sandbox: the default, and in compose


def check(values: Mapping[str, str], mail: bytes | None) -> Iterator[Finding]:
    """:param mail: a received follow-up, with all its headers"""
    real = values["SMTP_HOST"] not in SANDBOX
    if real:
        yield from _addresses(values)
    if mail is not None:
        yield from _received(message_from_bytes(mail))
    elif real or is_production(values):
        yield unknown(
            "DKIM",
            "the relay adds the signature, so it cannot be seen from here",
            f"{SIGN}; to check: make send-test TO=you@example.com, save the received mail, "
            "ostoja doctor --mail FILE",
        )
    else:
        yield ok("DKIM", "not needed: mail goes to the sandbox")


def _addresses(values: Mapping[str, str]) -> Iterator[Finding]:
    reserved = [name for name in ADDRESSES if _is_reserved(values[name])]
    if reserved:
        yield wrong(
            "addresses",
            f"still an example: {', '.join(f'{name} is {values[name]}' for name in reserved)}",
            f"set {', '.join(reserved)} in .env, then {RESTART}; relays reject mail to or from an "
            "example address permanently",
        )
    else:
        yield ok("addresses", f"{', '.join(ADDRESSES)} are set")


def _is_reserved(address: str) -> bool:
    domains = [each.rpartition("@")[2].lower().rstrip(".") for _, each in getaddresses([address])]
    return any(RESERVED.fullmatch(domain) for domain in domains)


def _received(mail: Message) -> Iterator[Finding]:
    missing = [name for name in COVERED if name not in mail]
    if missing:
        yield wrong("DKIM", f"the mail has no {', '.join(missing)}", "use an unmodified follow-up")
        return
    signatures = [_tags(str(each)) for each in mail.get_all("DKIM-Signature", [])]
    if not signatures:
        yield wrong("DKIM", "the mail has no DKIM-Signature", SIGN)
        return
    domain = parseaddr(str(mail["From"]))[1].rpartition("@")[2].lower()
    aligned = [tags for tags in signatures if _aligned(tags.get("d", "").lower(), domain)]
    if not aligned:
        signers = ", ".join(sorted({tags.get("d", "unknown") for tags in signatures}))
        yield wrong(
            "DKIM", f"signed by {signers}, not by {domain}", f"have the relay sign for {domain}"
        )
        return
    uncovered = min((_uncovered(tags) for tags in aligned), key=len)
    if uncovered:
        yield wrong("DKIM", f"the signature does not cover {', '.join(uncovered)}", SIGN)
    else:
        yield ok("DKIM", f"the signature of {domain} covers both headers")


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
