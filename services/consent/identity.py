"""Reads which data subject a text names."""

from libs.domain import phone_number
from libs.domain.email_address import normalise
from services.consent.rules import Subject


def channel_of(identity: str) -> str:
    """Return the means of contact by which this address or number is reached."""
    return "email" if "@" in identity else "phone"


def parse_subject(text: str) -> Subject:
    """Read an e-mail address or a phone number.

    :raises ValueError: it is neither
    """
    if "@" in text:
        return Subject(email=normalise(text))
    return Subject(phone=phone_number.normalise(text))
