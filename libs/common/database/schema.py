"""A service's tables, read from its `store/schema.sql`, which is generated from its migrations.

The code knows a new column of a migration only once the file is generated again.
"""

import re
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, JSONB

_TYPES: dict[str, Any] = {
    "bigint": sa.BigInteger(),
    "boolean": sa.Boolean(),
    "bytea": sa.LargeBinary(),
    "int8multirange": INT8MULTIRANGE(),
    "integer": sa.Integer(),
    "jsonb": JSONB(none_as_null=True),
    "real": sa.REAL(),
    "text": sa.Text(),
    "timestamptz": sa.DateTime(timezone=True),
    "uuid": sa.Uuid(),
}
TABLE = re.compile(r"^CREATE TABLE (\w+) \(\n(.*?)^\)", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r'^    "?(?!CONSTRAINT)(\w+)"? (\w+)(\[\])?', re.MULTILINE)
_REFERENCE = re.compile(r"FOREIGN KEY \((\w+)\) REFERENCES (\w+)\((\w+)\)")


def columns(body: str) -> list[tuple[str, str, str]]:
    """Return the name and type of each column, and `[]` for an array."""
    return _COLUMN.findall(body.partition("    CONSTRAINT")[0])


def read(path: Path) -> sa.MetaData:
    """Return the tables with their columns and references; keys and checks are PostgreSQL's."""
    metadata = sa.MetaData()
    for table, body in TABLE.findall(path.read_text(encoding="utf-8")):
        references = {column: f"{other}.{key}" for column, other, key in _REFERENCE.findall(body)}
        sa.Table(
            table,
            metadata,
            *(
                sa.Column(
                    name,
                    ARRAY(_TYPES[kind]) if many else _TYPES[kind],
                    *([sa.ForeignKey(references[name])] if name in references else []),
                )
                for name, kind, many in columns(body)
            ),
        )
    return metadata
