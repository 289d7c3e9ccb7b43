"""Are the addresses somebody's, and will a mail program show "unsubscribe"?

It does only if the relay signs the two headers it hangs on. We hand mail to a relay, and the relay
signs it (DKIM); so its signature is seen only in a mail that came back. RFC 8058, section 4: both
headers must be covered by a valid signature. Whether it verifies is for the mailbox's own
Authentication-Results to say; here it is read what it covers.
"""

import re
from collections.abc import Iterator, Mapping
from email import message_from_bytes
from email.message import Message
from email.utils import getaddresses, parseaddr

from ostoja.doctor.deployment import RESTART
from ostoja.doctor.finding import Finding, ok, unknown, wrong

COVERED = ("from", "list-unsubscribe", "list-unsubscribe-post")
SIGN = "let the relay sign From, List-Unsubscribe and List-Unsubscribe-Post (h= of DKIM-Signature)"
ADDRESSES = ("ESCALATION_EMAIL", "STAFF_EMAIL", "MAIL_FROM")
_PRETENDED = {"", "sandbox", "mailpit"}  # where nothing leaves: the default, and compose's own
# RFC 2606: nobody has a mailbox there, so a relay refuses each mail to it for good.
_NOBODYS = re.compile(r"(.*\.)?(example(\.(com|net|org))?|test|invalid|localhost)")


def check(values: Mapping[str, str], mail: bytes | None) -> Iterator[Finding]:
    """:param mail: a follow-up as it arrived in a mailbox, with all its headers"""
    real = values["SMTP_HOST"] not in _PRETENDED
    if real:
        yield from _addresses(values)
    if mail is not None:
        yield from _received(message_from_bytes(mail))
    elif real:
        yield unknown(
            "DKIM",
            "the relay signs after us, so it is not to be seen from here",
            f"{SIGN}; to look: make send-test TO=you@example.com, save the mail as it came, "
            "ostoja doctor --mail FILE",
        )
    else:
        yield ok("DKIM", "mail goes to the sandbox: nothing leaves, nothing is to be signed")


def _addresses(values: Mapping[str, str]) -> Iterator[Finding]:
    nobodys = [name for name in ADDRESSES if _is_nobodys(values[name])]
    if nobodys:
        yield wrong(
            "addresses",
            f"nobody's: {', '.join(f'{name} is {values[name]}' for name in nobodys)}",
            f"set {', '.join(nobodys)} in .env, then {RESTART}; what goes there, or comes from "
            "there, is refused for good",
        )
    else:
        yield ok("addresses", f"{', '.join(ADDRESSES)} are no examples")


def _is_nobodys(address: str) -> bool:
    domains = [each.rpartition("@")[2].lower().rstrip(".") for _, each in getaddresses([address])]
    return any(_NOBODYS.fullmatch(domain) for domain in domains)


def _received(mail: Message) -> Iterator[Finding]:
    missing = [name for name in COVERED if name not in mail]
    if missing:
        yield wrong("DKIM", f"the mail has no {', '.join(missing)}", "take a follow-up, unchanged")
        return
    signatures = [_tags(str(each)) for each in mail.get_all("DKIM-Signature", [])]
    if not signatures:
        yield wrong("DKIM", "the mail bears no DKIM-Signature", SIGN)
        return
    domain = parseaddr(str(mail["From"]))[1].rpartition("@")[2].lower()
    aligned = [tags for tags in signatures if _aligned(tags.get("d", "").lower(), domain)]
    if not aligned:
        signers = ", ".join(sorted({tags.get("d", "nobody") for tags in signatures}))
        yield wrong(
            "DKIM", f"signed by {signers}, not by {domain}", f"let it be signed for {domain}"
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
    """Whether it is the sender's own, or one above or below it (DMARC, relaxed)."""
    same = signer == domain
    return bool(signer) and (same or domain.endswith(f".{signer}") or signer.endswith(f".{domain}"))


def _uncovered(tags: Mapping[str, str]) -> list[str]:
    covered = tags.get("h", "").lower().split(":")
    return [name for name in COVERED if name not in covered]
