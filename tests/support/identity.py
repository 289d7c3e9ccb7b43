"""An identity provider: oidc-provider-mock, as a process of its own.

It signs what `put` says of a person over the claims of its own, so it can be made to say what is
wrong. It does not look at PKCE.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import aiohttp

from deploy.up.process import wait_until
from tests.support.ports import HOST


class IdentityProvider:
    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.settings = {
            "OIDC_ISSUER": self.url,
            "OIDC_CLIENT_ID": "ostoja",
            "OIDC_CLIENT_SECRET": "secret-of-the-tests",
        }

    def answers(self) -> bool:
        with suppress(OSError), urlopen(f"{self.url}/jwks", timeout=5) as response:
            return bool(response.status == 200)
        return False

    async def put(self, subject: str, **claims: Any) -> None:
        url = f"{self.url}/users/{subject}"
        async with aiohttp.ClientSession() as session, session.put(url, json=claims) as response:
            assert response.status == 204

    async def authorize(self, url: str, subject: str) -> str:
        """Log this person in there; return the path to which it sends the browser back."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data={"sub": subject}, allow_redirects=False) as response,
        ):
            assert response.status == 302, await response.text()
            back = urlsplit(response.headers["Location"])
        return f"{back.path}?{back.query}"


@contextmanager
def running_provider(port: int) -> Iterator[IdentityProvider]:
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            provider = IdentityProvider(port)
            wait_until(command[2], 60, provider.answers, lambda: process.poll() is None)
            yield provider
        finally:
            process.terminate()
