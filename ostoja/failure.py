"""What the exit code says, so that a script can tell a sick system from a mistyped command."""

from enum import IntEnum


class Exit(IntEnum):
    NOT_OK = 1
    """The answer is no: a check fails, or what was named is not there."""
    USAGE = 2
    UNREACHABLE = 3
    """The gateway, or the part of the system behind it, does not answer."""
    REFUSED = 4
    """The key is missing or wrong, or a rate limit is reached."""


class Failure(Exception):  # noqa: N818 - not every one is an error
    """Ends the command; its text is one line for the person at the terminal."""

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(text)
        self.code = code
