"""What the words of a message say, whatever signs are between them.

vocabulary/meanings.toml has what phrases of several files mean together.
"""

import re
from functools import lru_cache

from services.followups.reading.tokens import Said, Vocabulary

_TOKEN = re.compile(
    r"(?P<mail>[\w.+-]{1,64}@[\w.-]{1,80})|(?P<amount>\d+)(?![^\W_])|(?P<word>[^\W_]+)"
)
_FILES = ("small_talk", "mailbox", "wish", "firm", "consent", "addresses", "meanings")
_STOPS = {"", ".", ",", ";", "!"}


class Speech(Said):
    vocabulary = Vocabulary(*_FILES, pattern=_TOKEN)

    def is_whole(self, name: str) -> bool:
        """Return whether the text is a phrase of this meaning, and nothing else."""
        return (0, len(self.tokens)) in self.all(name)

    def stops(self, end: int, *signs: str) -> bool:
        """Return whether a clause ends with these tokens, by a sign or by one of these."""
        return self.text[self.tokens[end - 1].end :].lstrip()[:1] in {*_STOPS, *signs}


heard = lru_cache(64)(Speech)  # a turn asks several things of the same message


def says(text: str, name: str) -> bool:
    """Return whether the text has a phrase, or what a rule needs, of this meaning."""
    return name in heard(text).names
