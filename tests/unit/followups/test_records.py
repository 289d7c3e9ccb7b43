"""Streaming readers of lead files."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.http.application import Problem
from services.followups.leads import records
from services.followups.leads.records import MAX_RECORD, Record

KNOWN = frozenset({"email", "name"})


async def parts(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read_csv(text: str | bytes, size: int = 7) -> list[Record]:
    data = text if isinstance(text, bytes) else text.encode()
    return [record async for record in records.csv_records(parts(data, size), KNOWN)]


async def read_json(data: bytes, size: int = 7) -> list[Record]:
    return [record async for record in records.json_lines(parts(data, size))]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
async def test_csv_is_read_as_spreadsheets_write_it(delimiter: str, end: str, start: str) -> None:
    rows = [["Email", "Name"], ["a@example.com", '"Żaneta"'], ["", ""], ["b@example.com", " "]]
    text = start + end.join(delimiter.join(row) for row in rows)
    assert await read_csv(text) == [
        Record(2, {"email": "a@example.com", "name": "Żaneta"}),
        Record(4, {"email": "b@example.com"}),
    ]


async def test_a_line_end_inside_quotes_belongs_to_its_cell() -> None:
    records = await read_csv('email,name\na,"one\ntwo ""2"""\nb,c\n')
    assert records == [
        Record(2, {"email": "a", "name": 'one\ntwo "2"'}),
        Record(4, {"email": "b", "name": "c"}),
    ]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"a,b,c", "3 cells, but the header has 2"),
        (b"a", "1 cells"),
        (b"a,\xff", "not UTF-8"),
        (b"a,b\0", "NUL"),
        (b'a,"b"c', "expected after"),
        (b"a," + b"x" * (MAX_RECORD + 9), "longer than"),
        (b'a,"' + b"x\n" * MAX_RECORD, "longer than"),
    ],
)
async def test_an_unreadable_row_is_reported_and_reading_continues(bad: bytes, why: str) -> None:
    records = await read_csv(b"email,name\n" + bad + b"\nb@example.com,B\n", size=4096)
    assert records[0].line == 2
    assert why in str(records[0].fault)
    good = [record.fields for record in records if record.fault is None]
    assert good[-1] == {"email": "b@example.com", "name": "B"}


async def test_an_unclosed_quote_is_reported_at_its_first_line() -> None:
    [first, last] = await read_csv('email,name\na,b\nc,"d\ne,f\n')
    assert (first.fault, last.line, last.fault) == (None, 3, "unclosed quote")


@pytest.mark.parametrize("header", ["", "email,fame", "email,email", "\xff"])
async def test_an_invalid_header_is_refused(header: str) -> None:
    with pytest.raises(Problem) as refused:
        await read_csv(f"{header}\na,b\n" if header else "")
    assert refused.value.status == 422


async def test_json_lines_are_read_and_a_bad_one_is_reported() -> None:
    data = b'{"email": "a"}\n\n[1]\n{"email": }\n{"a": 1, "a": 2}\n"x"\n' + (
        b'{"n": "\\u0000"}\n{"email": "' + b"x" * MAX_RECORD + b'"}\n{"email": "z"}'
    )
    records = await read_json(data, size=1000)
    assert [record.line for record in records] == [1, 3, 4, 5, 6, 7, 8, 9]
    assert [record.line for record in records if record.fault is None] == [1, 9]
    assert records[-1].fields == {"email": "z"}


@given(
    st.lists(st.dictionaries(st.sampled_from(["email", "name"]), st.text(min_size=1), min_size=1)),
    st.integers(1, 50),
)
async def test_chunk_boundaries_do_not_change_what_is_read(
    rows: list[dict[str, str]], size: int
) -> None:
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    expected: list[Any] = [(line, row) for line, row in enumerate(rows, 1)]
    records = await read_json(data, size)
    found = [(record.line, record.fields) for record in records if record.fault is None]
    named = [record.line for record in records if record.fault is not None]
    assert found == [each for each in expected if each[0] not in named]
