"""What the words of a message say, whatever signs are between them."""

import re
from functools import lru_cache

from services.followups.reading.tokens import Said, Vocabulary

_TOKEN = re.compile(
    r"(?P<mail>[\w.+-]{1,64}@[\w.-]{1,80})|(?P<amount>\d+)(?![^\W_])|(?P<word>[^\W_]+)"
)
_WORDS = Vocabulary("small_talk", "mailbox", "wish", "firm", "consent", pattern=_TOKEN)


_tokens = lru_cache(64)(_WORDS.tokens)


@lru_cache(64)  # a turn asks several things of the same message
def heard(text: str, file: str) -> Said:
    return Said(_WORDS, text, file, tokens=_tokens(text))


def says(text: str, name: str, file: str = "small_talk") -> bool:
    """Return whether the text has a phrase of this meaning."""
    return heard(text, file).is_said(name)
