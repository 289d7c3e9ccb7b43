"""Plain forms as browsers, mailbox providers and Slack post them: urlencoded or multipart.

aiohttp's `post()` is not used: it decodes by whatever codec a stranger names, and keeps files.
"""

import logging
import re
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import MultiDict
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from libs.common.http.application import Problem, media_type

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
TYPES = frozenset({URLENCODED, MULTIPART})
MOST_FIELDS = 1000
MOST_LINE_BYTES = 1024
"""A line of a part's head, which has at most four."""
_PLAIN = {b"", b"7bit", b"8bit", b"binary"}
_DISPOSITION = re.compile(
    rb'form-data\s*;\s*name=(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s;"]+))\s*(?P<file>;\s*filename.*)?;?',
    re.IGNORECASE | re.DOTALL,
)
"""As browsers and mailbox providers write it: they escape a quote in a name as %22."""

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs what it was sent


async def read(request: web.Request) -> MultiDict[str]:
    """Return the fields of the posted form; none without a body.

    :raises Problem: 415 another content type, 413 too large, and as `fields`
    """
    body = await request.read()
    if not body:
        return MultiDict()
    if media_type(request.headers) not in TYPES:
        raise Problem(415, detail="the content type must be a form's")
    return MultiDict(fields(body, request.headers["Content-Type"]))


def fields(body: bytes, content_type: str, most: int = MOST_FIELDS) -> list[tuple[str, str]]:
    """Parse a plain form.

    :param content_type: the whole header, with its boundary
    :raises Problem: 400 not a form, 422 a file, or more fields than `most`
    """
    is_multipart = content_type.partition(";")[0].strip().lower() == MULTIPART
    try:
        if is_multipart:
            return _Parts(content_type, most).parse(body)
        return parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=most
        )
    except (ValueError, FormParserError):
        kind = MULTIPART if is_multipart else URLENCODED
        raise Problem(400, detail=f"the body is not {kind}") from None


class _Parts:
    """The fields of a multipart body; only those, and not deeper."""

    def __init__(self, content_type: str, most: int) -> None:
        self._boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        self._most = most
        self._fields: list[tuple[str, str]] = []
        self._head: list[tuple[bytes, bytes]] = []
        self._name = ""
        self._value = b""
        self._has_ended = False

    def parse(self, body: bytes) -> list[tuple[str, str]]:
        """:raises ValueError: it has no boundary, no end, or a part that is no field"""
        if not self._boundary:
            raise ValueError("no boundary")
        MultipartParser(
            self._boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._head.append(
                    (data[start:end].lower(), b"")
                ),
                "on_header_value": self._set_line,
                "on_headers_finished": self._end_head,
                "on_part_data": self._set_value,
                "on_part_end": lambda: self._fields.append((self._name, self._value.decode())),
                "on_end": self._end,
            },
            max_header_count=4,
            max_header_size=MOST_LINE_BYTES,
        ).write(body)
        if not self._has_ended:
            raise ValueError("the last boundary is missing")
        return self._fields

    def _begin(self) -> None:
        if len(self._fields) == self._most:
            raise Problem(422, detail=f"more than {self._most} fields")
        self._head, self._value = [], b""

    def _set_line(self, data: bytes, start: int, end: int) -> None:
        self._head[-1] = self._head[-1][0], data[start:end]

    def _set_value(self, data: bytes, start: int, end: int) -> None:
        self._value = data[start:end]  # at once: the body is written whole

    def _end_head(self) -> None:
        head = dict(self._head)
        said = _DISPOSITION.fullmatch(head.get(b"content-disposition", b""))
        is_nested = head.get(b"content-type", b"").lower().startswith(b"multipart/")
        is_coded = head.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN
        if said is None or is_nested or is_coded:
            raise ValueError("a part that is no field")
        self._name = (said["quoted"] or said["bare"] or b"").decode()
        if said["file"]:
            raise Problem(422, errors=[(self._name[:60], "a file cannot be sent")])

    def _end(self) -> None:
        self._has_ended = True
