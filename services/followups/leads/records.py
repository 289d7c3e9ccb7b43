"""Streaming readers of CSV and JSON lines: one record at a time, with its line number.

An unreadable record is yielded with its fault, and reading continues. At most one record is in
memory.
"""

import csv
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Any

from libs.common.http.application import Problem, check_json

MAX_RECORD = 64 * 1024
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class Record:
    line: int
    """Number of its first line, from 1."""
    fields: dict[str, Any]
    fault: str | None = None


async def lines(parts: AsyncIterable[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Split at line ends; a line that is too long is cut one byte above the limit."""
    number, held = 1, bytearray()
    async for part in parts:
        *whole, rest = part.split(b"\n")
        for piece in whole:
            held += piece
            yield number, bytes(held[: MAX_RECORD + 1])
            number += 1
            held.clear()
        held += rest[: MAX_RECORD + 1 - len(held)]
    if held:
        yield number, bytes(held[: MAX_RECORD + 1])


async def json_lines(parts: AsyncIterable[bytes]) -> AsyncIterator[Record]:
    async for line, text in lines(parts):
        if len(text) > MAX_RECORD:
            yield Record(line, {}, f"longer than {MAX_RECORD} bytes")
        elif text.strip():
            try:
                fields = check_json(text)
            except Problem as problem:
                faults = "; ".join(f"{field}: {reason}" for field, reason in problem.errors)
                yield Record(line, {}, faults or problem.detail)
                continue
            if isinstance(fields, dict):
                yield Record(line, fields)
            else:
                yield Record(line, {}, "not a JSON object")


async def csv_records(parts: AsyncIterable[bytes], known: frozenset[str]) -> AsyncIterator[Record]:
    """Read CSV with a header, whose delimiter counts for all rows; an empty cell is no value.

    :raises Problem: 422 the header is missing, malformed or has an unknown column
    """
    header: list[str] | None = None
    delimiter = ","
    first, held = 0, b""
    async for line, text in lines(parts):
        first = first if held else line
        held += text + b"\n"
        if len(held) <= MAX_RECORD and held.count(b'"') % 2:
            continue  # a line end inside quotes
        record, held = held, b""
        if header is None:
            delimiter, header = _header(record, known)
            continue
        if not record.strip():
            continue
        try:
            cells = _cells(record, delimiter)
        except ValueError as error:
            yield Record(first, {}, str(error))
            continue
        if len(cells) != len(header):
            yield Record(first, {}, f"{len(cells)} cells, but the header has {len(header)}")
        elif any(cell.strip() for cell in cells):  # spreadsheets export empty rows
            pairs = zip(header, cells, strict=True)
            yield Record(first, {name: cell for name, cell in pairs if cell.strip()})
    if held:
        yield Record(first, {}, "unclosed quote")
    if header is None:
        raise Problem(422, detail="the file has no header")


def _header(record: bytes, known: frozenset[str]) -> tuple[str, list[str]]:
    text = record.removeprefix(b"\xef\xbb\xbf")  # Excel writes a BOM
    delimiter = max(_DELIMITERS, key=lambda one: text.count(one.encode()))
    try:
        header = [name.strip().lower() for name in _cells(text, delimiter)]
    except ValueError as error:
        raise Problem(422, detail=f"the header: {error}") from None
    if set(header) - known:
        raise Problem(422, detail=f"the header may only name: {', '.join(sorted(known))}")
    if len(set(header)) < len(header):
        raise Problem(422, detail="the header names a column twice")
    return delimiter, header


def _cells(record: bytes, delimiter: str) -> list[str]:
    """:raises ValueError: names the fault"""
    if len(record) > MAX_RECORD:
        raise ValueError(f"longer than {MAX_RECORD} bytes, or an unclosed quote")
    try:
        text = record.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if "\0" in text:
        raise ValueError("contains a NUL byte")
    try:
        (cells,) = csv.reader([text], delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return cells
