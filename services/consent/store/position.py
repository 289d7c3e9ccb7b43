"""A position in the trail's hash chain."""

import re
from typing import NamedTuple, Self


class Position(NamedTuple):
    """Right after the row of this number, with that row's hash."""

    rows: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.rows}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """:raises ValueError: not in the format of `str`"""
        found = re.fullmatch("([0-9]{1,18}):([0-9a-f]{64})", text)
        if found is None:
            raise ValueError("not a position in the chain")
        return cls(int(found[1]), bytes.fromhex(found[2]))


START = Position(0, bytes(32))
