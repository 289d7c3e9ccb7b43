"""The sandbox as a process of its own, and its API in a test's words."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import aiohttp

from tests.support.ports import HOST, Ports

WEBHOOK_SECRET = "whsec_c2FuZGJveC1zYW5kYm94LXNhbmRib3gtMTIzNA=="


@dataclass(frozen=True)
class SandboxApi:
    port: int
    mail_port: int
    host: str = field(default=HOST, kw_only=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def mail_url(self) -> str:
        return f"http://{self.host}:{self.mail_port}"

    async def behave(self, target: str, **behaviour: Any) -> None:
        await self._call("PUT", f"{self.url}/behaviour/{target}", behaviour)

    async def received(self, target: str, *, refused_too: bool = False) -> list[dict[str, Any]]:
        query = f"target={target}&all={str(refused_too).lower()}"
        answer = await self._call("GET", f"{self.url}/received?{query}")
        received: list[dict[str, Any]] = answer["received"]
        return received

    async def mails(self, to: str = "") -> list[dict[str, Any]]:
        """Return the newest 1000, or those of them to an address, oldest first, with their text."""
        found = (await self._call("GET", f"{self.mail_url}/api/v1/messages?limit=1000"))["messages"]
        return [
            {**mail, **await self._call("GET", f"{self.mail_url}/api/v1/message/{mail['ID']}")}
            for mail in reversed(found)
            if to in str(mail["To"])
        ]

    async def press(self, to: str, message: Any, action: str, **how: Any) -> tuple[int, str]:
        """Press a button of an app's Slack message, and return what the app answered to Slack.

        :param message: its `channel` and `ts`
        """
        where = {"to": to, "channel": message["channel"], "ts": message["ts"], "action": action}
        answer = await self._call("POST", f"{self.url}/slack/press", where | how)
        return answer["status"], answer["body"]

    async def heal(self) -> None:
        for target in ("slack", "monday", "sms", "webhook", "email"):
            await self.behave(target, status=200)

    async def reset(self) -> None:
        """Heal every target and forget what came in."""
        await self.heal()
        await self._call("DELETE", f"{self.url}/received")
        await self._call("DELETE", f"{self.mail_url}/api/v1/messages")

    @staticmethod
    async def _call(method: str, url: str, body: Any = None) -> Any:
        async with (
            aiohttp.ClientSession(raise_for_status=True) as session,
            session.request(method, url, json=body) as answer,
        ):
            return await answer.json() if answer.content_type == "application/json" else None


@dataclass(frozen=True)
class Sandbox(SandboxApi):
    smtp_port: int
    process: subprocess.Popen[bytes]
    smtp_host: str = HOST
    webhook_secret: str = WEBHOOK_SECRET


@contextmanager
def running_sandbox(ports: Ports, host: str = HOST) -> Iterator[Sandbox]:
    port, mail_port, smtp_port = (ports.take() for _ in range(3))
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.sandbox"],
        env={
            **os.environ,
            "SANDBOX_HOST": host,
            "SANDBOX_PORT": str(port),
            "SANDBOX_MAIL_PORT": str(mail_port),
            "SANDBOX_SMTP_PORT": str(smtp_port),
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
        },
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait(process, host, port)
        yield Sandbox(port, mail_port, smtp_port, process, host=host)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait(process: subprocess.Popen[bytes], host: str, port: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the sandbox ended with {process.returncode}")
        connection = HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", "/health")
            # The SMTP port opens a moment after the first answer of this one.
            if connection.getresponse().status == 200:
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            connection.close()
