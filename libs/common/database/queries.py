"""Reads .sql files of named statements: `-- name: x`, what it is for, and the SQL.

`{x}` stands for the text of an earlier one, or of a `-- fragment: x`, which is no statement.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common import beside
from libs.common.database.engine import alone
from libs.common.database.statement import Rows, Statement

_SECTION: Final = re.compile(r"^-- (name|fragment): (\w+)\n", re.MULTILINE)
_COMMENT: Final = re.compile(r"^--.*\n", re.MULTILINE)
_USE: Final = re.compile(r"\{(\w+)\}")


def texts(path: Path, **given: object) -> dict[str, str]:
    """Return the statements of a file by name, without comments.

    :param given: what the file uses as `{so}`, beside what stands above the use
    """
    known, found = {name: str(value) for name, value in given.items()}, {}
    _, *parts = _SECTION.split(path.read_text(encoding="utf-8"))
    for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text = _USE.sub(lambda use: known[use[1]], _COMMENT.sub("", body)).strip()
        known[name] = text = text.removesuffix(";")
        if kind == "name":
            found[name] = text
    return found


class Queries:
    def __init__(
        self, module: str, file: str = ".sql", *, json: Iterable[str] = (), **given: object
    ) -> None:
        """:param file: beside the module
        :param json: names of parameters that are written as JSON
        :param given: as of `texts`
        """
        self.texts = texts(beside.path(module, file), **given)
        self.statements: dict[str, Statement] = {}
        for name, text in self.texts.items():
            clause = sa.text(text)
            written = clause.compile().params.keys() & {*json}
            typed = (sa.bindparam(each, type_=JSONB(none_as_null=True)) for each in written)
            self.statements[name] = Statement(clause.bindparams(*typed))

    async def __call__(self, tx: AsyncConnection, name: str, /, **values: Any) -> Rows:
        """Execute one, as `Statement.execute` does."""
        return await self.statements[name].execute(tx, values)

    async def alone(self, engine: AsyncEngine, name: str, /, **values: Any) -> Rows:
        """Execute one as a transaction of its own, which takes one round trip instead of two."""
        async with alone(engine) as tx:
            return await self(tx, name, **values)
