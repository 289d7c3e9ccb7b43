"""A gateway of the test's own words, for answers that a sound system does not give."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ostoja.app import app
from tests.support.cli import WIDTH

Run = Callable[..., Result]


class Gateway:
    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        """In the order in which they are given; the last one again and again."""
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str, Any, dict[str, str]]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                gateway.asked.append((self.command, self.path, body, dict(self.headers)))
                answers = gateway.answers
                status, said = answers.pop(0) if len(answers) > 1 else answers[0]
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                for name, value in {"Content-Length": len(data), **gateway.headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            # As the server wants them named.
            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def run(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("stats")`: as if typed, with the key `the-key`, on `gateway`."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    environment = {"OSTOJA_URL": gateway.url, "OSTOJA_KEY": "the-key", "OSTOJA_OPERATOR": "ola"}

    def typed(*words: str, said: str = "", **more: str) -> Result:
        return CliRunner().invoke(app, words, input=said, env={**environment, **more})

    return typed
