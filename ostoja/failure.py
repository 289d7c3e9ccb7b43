"""Exit codes. They let a script tell a failing system from a mistyped command."""

from enum import IntEnum


class Exit(IntEnum):
    NOT_OK = 1
    """A check failed, or the named object does not exist."""
    USAGE = 2
    UNREACHABLE = 3
    """The gateway, or a service behind it, does not answer."""
    REFUSED = 4
    """The key is wrong, or a rate limit is reached."""


class Failure(Exception):  # noqa: N818 - not every one is an error
    """Ends the command; the user sees its text on one line."""

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(text)
        self.code = code
