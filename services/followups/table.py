"""CSV or JSON lines as they come: one record after the other, each with its line.

A record that cannot be read is given as the reason why; the next one is read all the same. What
is held at a time is one record.
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
    """Of its first line, counted from 1."""
    fields: dict[str, Any]
    fault: str | None = None


async def lines(parts: AsyncIterable[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Cut at line ends; of a line that is too long there is one byte more than allowed."""
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
                told = "; ".join(f"{field}: {reason}" for field, reason in problem.errors)
                yield Record(line, {}, told or problem.detail)
                continue
            if isinstance(fields, dict):
                yield Record(line, fields)
            else:
                yield Record(line, {}, "not a JSON object")


async def csv_records(parts: AsyncIterable[bytes], known: frozenset[str]) -> AsyncIterator[Record]:
    """Read CSV with a header, separated by what the header is; an empty cell is no value.

    :raises Problem: 422 a header that is none, or names what nobody knows
    """
    header: list[str] | None = None
    delimiter = ","
    first, held = 0, b""
    async for line, text in lines(parts):
        first = first if held else line
        held += text + b"\n"
        if len(held) <= MAX_RECORD and held.count(b'"') % 2:
            continue  # a line end within quotes
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
            yield Record(first, {}, f"{len(cells)} cells, and the header has {len(header)}")
        elif any(cell.strip() for cell in cells):  # spreadsheets leave empty rows behind
            pairs = zip(header, cells, strict=True)
            yield Record(first, {name: cell for name, cell in pairs if cell.strip()})
    if held:
        yield Record(first, {}, "a quote is not closed")
    if header is None:
        raise Problem(422, detail="the file has no header")


def _header(record: bytes, known: frozenset[str]) -> tuple[str, list[str]]:
    text = record.removeprefix(b"\xef\xbb\xbf")  # as Excel writes it
    delimiter = max(_DELIMITERS, key=lambda one: text.count(one.encode()))
    try:
        header = [name.strip().lower() for name in _cells(text, delimiter)]
    except ValueError as error:
        raise Problem(422, detail=f"the header: {error}") from None
    strangers = sorted(set(header) - known)
    if strangers or len(set(header)) < len(header):
        told = "names a column twice" if not strangers else "knows: " + ", ".join(sorted(known))
        raise Problem(422, detail=f"the header {told}")
    return delimiter, header


def _cells(record: bytes, delimiter: str) -> list[str]:
    """:raises ValueError: says why it cannot be read"""
    if len(record) > MAX_RECORD:
        raise ValueError(f"longer than {MAX_RECORD} bytes, or a quote is not closed")
    try:
        text = record.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if "\0" in text:
        raise ValueError("a NUL byte is not allowed")
    try:
        (cells,) = csv.reader([text], delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return cells
