"""Reads .sql files of named statements: `-- name: x`, what it is for, and the SQL.

`{x}` stands for the text of an earlier one, or of a `-- fragment: x`, which is no statement.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

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
        self, path: Path, parameters: Mapping[str, Any], columns: Mapping[str, Any] | None = None
    ) -> None:
        """:param parameters, columns: types by name, which asyncpg needs where it cannot guess"""
        self._statements: dict[str, Statement] = {}
        for name, text in texts(path).items():
            clause = sa.text(text)
            types = parameters.keys() & clause.compile().params.keys()
            clause = clause.bindparams(*(sa.bindparam(p, type_=parameters[p]) for p in types))
            typed = {column: kind for column, kind in (columns or {}).items() if column in text}
            self._statements[name] = Statement(clause.columns(**typed) if typed else clause)

    async def __call__(self, tx: AsyncConnection, name: str, /, **values: Any) -> Rows:
        """Execute one, as `Statement.execute` does."""
        return await self._statements[name].execute(tx, values)
