"""In a process of its own: `configure` is for the life of one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def lines(script: str, **stdout: Any) -> list[dict[str, Any]]:
    """Run it with logs configured; what it printed, a line each."""
    start = "import logging, sys\nfrom libs.common.process import logs\nlogs.configure('test')\n"
    start += "log = logs.get_logger('ours')\n"
    ended = subprocess.run(
        [sys.executable, "-c", start + script],
        check=True,
        timeout=30,
        stderr=subprocess.PIPE,
        **stdout or {"stdout": subprocess.PIPE},
    )
    assert ended.stderr == b""
    return [json.loads(line) for line in (ended.stdout or b"").splitlines()]


def test_our_lines_and_a_library_s_have_one_shape_and_stay_in_order() -> None:
    first, second, third = lines(
        "logs.request_id.set('request-1')\n"
        "log.info('first', count=1)\n"
        "log.debug('not asked for')\n"
        "logging.getLogger('theirs').warning('sec%s', 'ond')\n"
        "log.info('third')\n"
    )
    for line in (first, second, third):
        assert (line.pop("service"), line.pop("request_id")) == ("test", "request-1")
        assert line.pop("timestamp").endswith("Z")
    assert first == {"event": "first", "level": "info", "logger": "ours", "count": 1}
    assert second == {"event": "second", "level": "warning", "logger": "theirs"}
    assert third["event"] == "third"


def test_a_fast_log_line_has_the_same_shape_as_the_others() -> None:
    ready, other = lines(
        "logs.info('ours', 'answered', '\"status\": 200, \"request_id\": \"request-1\"')\n"
        "logs.request_id.set('request-1')\n"
        "log.info('answered', status=200)\n"
        "logs.configure('test', 'WARNING')\n"
        "logs.info('ours', 'not asked for', '\"status\": 200')\n"
    )
    assert {**ready, "timestamp": ""} == {**other, "timestamp": ""}
    assert list(ready) == ["status", "request_id", *list(other)[1:-1]]


def test_an_exception_is_one_line_with_its_traceback() -> None:
    (line,) = lines("try: 1 / 0\nexcept ZeroDivisionError: log.exception('failed')")
    assert "ZeroDivisionError" in line["exception"]


def test_half_a_character_loses_no_line() -> None:
    (line,) = lines(r"log.info('broken', text='\ud83d')")
    assert line["text"] == "\ud83d"


def test_a_log_line_that_cannot_be_written_raises_nothing() -> None:
    with Path("/dev/full").open("wb") as full:
        assert lines("log.info('lost')\nlog.info('too')\nsys.stdout = None", stdout=full) == []
