"""A service's schema as one page, and as a picture, from a migrated database."""

import re
import subprocess
from collections import defaultdict

from libs.common.database import schema
from libs.common.database.schema_version import VERSIONS
from tests.support.databases import DatabaseUrl

HEADER = "-- Generated from the migrations by `make schema`; a test compares the two.\n"
PICTURES = """# The data

The tables of each service, with their primary keys (PK) and references (FK). `make schema`
generates this page from the migrations, and `services/<service>/store/schema.sql`, which has the
checks, indexes, comments and rights as well. Services do not read each other's tables.
"""
_STATEMENT = re.compile(r"^--\n-- Name: (.*); Type: (.*); Schema: .*\n--\n\n", re.MULTILINE)
_SESSION = re.compile(
    r"^(?:SET|SELECT|\\(?:un)?restrict) .*\n|^-- PostgreSQL database dump.*\n", re.MULTILINE
)
_TABLE = re.compile(r"(?: TABLE(?: ONLY)?|COLUMN| ON(?! [A-Z])) (\w+)")
_FOLDED = re.compile(r"ALTER TABLE ONLY \w+\s+ADD (CONSTRAINT .*);")
_IDENTITY = re.compile(r"ALTER TABLE \w+ ALTER COLUMN (\w+) ADD (GENERATED ALWAYS AS IDENTITY)")
_REFERENCE = re.compile(r"FOREIGN KEY \((.*?)\) REFERENCES (\w+)\(")
_VIEWED = re.compile(r"^   FROM (\w+)$", re.MULTILINE)
_PRIMARY = re.compile(r"PRIMARY KEY \((.*)\)")


def page(url: DatabaseUrl) -> str:
    """Return what pg_dump says of the schema, by table, without owners and sequences."""
    command = ["pg_dump", "--schema-only", "--no-owner", f"--schema={url.service}"]
    said = _SESSION.sub("", subprocess.check_output([*command, url.superuser_url], text=True))
    said = re.sub(rf"(?<![\w'/]){url.service}\.(?=\w)", "", said)
    said = said.replace("timestamp with time zone", "timestamptz").replace(" USING btree", "")
    said = re.sub(r"'::text(?!\[)", "'", said)
    _, *parts = _STATEMENT.split(said)
    tables: dict[str, list[str]] = defaultdict(list)
    for name, kind, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text = re.sub("\n{2,}", "\n", body.strip().removesuffix("--").strip())
        if kind == "VIEW":  # PostgreSQL before 16 names the table of each column
            text = re.sub(rf"\b{_VIEWED.findall(text)[0]}\.", "", text)
        found = None if kind == "FUNCTION" else _TABLE.search(text)
        owner = found[1] if found else ""
        texts = tables[owner]
        if identity := _IDENTITY.match(text):
            column = re.compile(rf"^(    {identity[1]} .*?)(,?)$", re.MULTILINE)
            texts[0] = column.sub(rf"\1 {identity[2]}\2", texts[0], count=1)
        elif owner == VERSIONS or re.search("SCHEMA|SEQUENCE|DEFAULT", name + kind):
            continue
        elif folded := _FOLDED.fullmatch(text):
            texts[0] = texts[0].replace("\n)", f",\n    {folded[1]}\n)", 1)
        else:
            texts.append(text)
    shown = ("\n".join(texts) for _, texts in sorted(tables.items()) if texts)
    return HEADER + "".join(f"\n{text}\n" for text in shown)


def picture(page: str) -> str:
    """Return a page's tables as a diagram of mermaid."""
    lines = ["erDiagram"]
    for table, body in schema.TABLE.findall(page):
        keys = defaultdict(list)
        for columns in _PRIMARY.findall(body):
            for column in columns.split(", "):
                keys[column].append("PK")
        for columns, other in _REFERENCE.findall(body):
            lines.append(f'  {other} ||--o{{ {table} : "{columns}"')
            for column in columns.split(", "):
                keys[column].append("FK")
        lines.append(f"  {table} {{")
        for name, kind, many in schema.columns(body):
            lines.append(f"    {kind}{many} {name} {', '.join(keys[name])}".rstrip())
        lines.append("  }")
    return "\n".join(lines)


def pictures(pages: dict[str, str]) -> str:
    return PICTURES + "".join(
        f"\n## {service}\n\n```mermaid\n{picture(page)}\n```\n" for service, page in pages.items()
    )
