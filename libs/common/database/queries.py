"""Reads a `queries.sql`: for each statement `-- name --`, what it is for, and the SQL.

`{name}` stands for the text of an earlier one.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.common.database.statement import Rows, Statement


class Queries:
    def __init__(
        self, path: Path, parameters: Mapping[str, Any], columns: Mapping[str, Any] | None = None
    ) -> None:
        """:param parameters, columns: types by name, which asyncpg needs where it cannot guess"""
        texts: dict[str, str] = {}
        self._statements: dict[str, Statement] = {}
        _, *found = re.split(
            r"^-- (\w+) --\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        for name, body in zip(found[::2], found[1::2], strict=True):
            text = re.sub(r"\A(--.*\n)+", "", body).strip().removesuffix(";")
            text = texts[name] = re.sub(r"\{(\w+)\}", lambda known: texts[known[1]], text)
            clause = sa.text(text)
            types = parameters.keys() & clause.compile().params.keys()
            clause = clause.bindparams(*(sa.bindparam(p, type_=parameters[p]) for p in types))
            typed = {column: kind for column, kind in (columns or {}).items() if column in text}
            self._statements[name] = Statement(clause.columns(**typed) if typed else clause)

    async def __call__(self, tx: AsyncConnection, name: str, /, **values: Any) -> Rows:
        """Execute one, as `Statement.execute` does."""
        return await self._statements[name].execute(tx, values)
