"""Normalisation of e-mail addresses, the same in every service."""

import re
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator

MAX_OCTETS = 254  # RFC 5321: a path is 256 octets with its brackets
MAX_LOCAL_OCTETS = 64
MAX_LABEL_OCTETS = 63
MAX_GIVEN = 4 * MAX_OCTETS
"""Longer than any spelling of a valid address; parsing time grows with the square of the length."""

_ATOM = r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~\-\x80-\U0010ffff]+"
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*)"')
_LDH = re.compile(r"[0-9a-z](?:[0-9a-z-]*[0-9a-z])?")


class MalformedEmail(ValueError):  # noqa: N818 - reads as the answer it is
    """not a valid e-mail address"""

    def __str__(self) -> str:
        return str(self.__doc__)


def normalise(address: str) -> str:
    """Return the normal form of an address.

    Case and Unicode form are unified, an internationalised domain becomes ASCII, and unnecessary
    quotes are removed. A plus-tag stays: it is a different address.

    :raises MalformedEmail: it cannot be the address of a mailbox on the internet
    """
    local, at, domain = address.strip().rpartition("@")
    if not at or len(address) > MAX_GIVEN:
        raise MalformedEmail
    normal = f"{_local_part(local)}@{_domain(domain)}"
    if len(normal.encode()) > MAX_OCTETS:
        raise MalformedEmail
    return normal


def _local_part(text: str) -> str:
    text = _lower(text, "NFC")
    if quoted := _QUOTED.fullmatch(text):
        content = re.sub(r"\\(.)", r"\1", quoted[1])
        escaped = re.sub(r'(["\\])', r"\\\1", content)
        text = content if _DOT_ATOM.fullmatch(content) else f'"{escaped}"'
    elif not _DOT_ATOM.fullmatch(text):
        raise MalformedEmail
    # Reject separators, controls, surrogates, unassigned code points, and look-alikes of @. The
    # patterns above leave none of them in ASCII.
    if not text.isascii() and any(
        unicodedata.category(char)[0] in "CZ" or char in "﹫＠" for char in text if char != " "
    ):
        raise MalformedEmail
    if len(text.encode()) > MAX_LOCAL_OCTETS:
        raise MalformedEmail
    return text


def _domain(text: str) -> str:
    labels = [_label(label) for label in _lower(text, "NFKC").replace("。", ".").split(".")]
    if len(labels) < 2 or labels[-1].isdigit():
        raise MalformedEmail
    return ".".join(labels)


def _label(label: str) -> str:
    if len(label) > MAX_LABEL_OCTETS:  # punycode takes long for it, and makes it no shorter
        raise MalformedEmail
    if not label.isascii():
        if not all(char == "-" or unicodedata.category(char)[0] in "LNM" for char in label):
            raise MalformedEmail
        label = "xn--" + label.encode("punycode").decode()
    if len(label) > MAX_LABEL_OCTETS or not _LDH.fullmatch(label):
        raise MalformedEmail
    return label


def _lower(text: str, form: Literal["NFC", "NFKC"]) -> str:
    if text.isascii():
        return text.lower()
    # Lower-casing may denormalise, and normalising may add capitals: do both twice.
    for _ in range(2):
        text = unicodedata.normalize(form, unicodedata.normalize(form, text).lower())
    return text


Email = Annotated[str, AfterValidator(normalise)]
"""A normalised address as a field of a message or request body."""
