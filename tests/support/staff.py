"""A person of the console, as a browser without scripts: of a whole system, or of a console."""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pyotp

from tests.support.shipped import whole
from tests.support.stack import (
    HTTP_TARGETS,
    QUICK_MAIL,
    QUICK_TARGET,
    write_alerts_config,
)
from tests.support.system import System, fresh_address

PASSWORD = "kot spi na dachu"
COOKIE = "__Host-ostoja"
SAME = {"Sec-Fetch-Site": "same-origin"}

SECRET = re.compile('id="secret">([A-Z2-7]{32})<')
"""Of a second factor, in the page that sets it up."""
STEP_SECONDS = 30
"""How long a code is the one of now; its neighbours open, too."""
NEED_FACTOR = {"privacy", "admin"}

SILENCEABLE = "sms"
"""An event type that `on_call_config` lets people silence."""


def on_call_config(folder: Path) -> Path:
    """Write an alerts.toml in which a kind other than leads has a chain, and forms a short one.

    The breaker of `webhook` stays open until somebody closes it.
    """
    step = {"to": "email", "person": "manager", "wait": "1h"}
    chain = {"asks": ["sms"], "within": "1h", "hours": "always", "chain": [step]}
    short = {"asks": ["slack"], "within": "1s", "chain": [step | {"wait": "1s"}]}
    answers = {SILENCEABLE: chain, "lead.submitted": chain | short}
    broken = QUICK_TARGET | {"breaker": {"fail_max": 5, "reset_timeout": 600}}
    targets = {**dict.fromkeys(HTTP_TARGETS, QUICK_TARGET), "email": QUICK_MAIL, "webhook": broken}
    return write_alerts_config(folder, targets, answers=whole("alerts")["answers"] | answers)


def code_of(secret: str, step: int = 0) -> str:
    """Return the code of now, or of so many steps later: each opens once, and a neighbour does."""
    return pyotp.TOTP(secret).at(int(time.time()), counter_offset=step)


async def earlier_code(secret: str) -> str:
    """Return the code before the one of now, which opens for some seconds yet.

    Who sets up a second factor with it may log in with the one of now at once.
    """
    left = STEP_SECONDS - time.time() % STEP_SECONDS
    await asyncio.sleep(left if left < STEP_SECONDS / 3 else 0)
    return code_of(secret, -1)


@dataclass(frozen=True)
class Page:
    status: int
    text: str
    location: str | None
    headers: Mapping[str, str]

    @property
    def body(self) -> str:
        return self.location or self.text


class Person:
    """Follows no redirect, and sends the cookies itself: `Secure` ones stay with https."""

    secret = ""
    """Of their second factor, once they have one."""

    def __init__(self, url: str, email: str, **headers: str) -> None:
        self.url, self.email, self.headers = url, email, headers
        self.cookies: dict[str, str] = {}

    @property
    def cookie(self) -> str:
        return self.cookies.get(COOKIE, "")

    @cookie.setter
    def cookie(self, value: str) -> None:
        self.cookies[COOKIE] = value

    async def get(self, path: str) -> Page:
        return await self._ask("GET", path, None)

    async def post(self, path: str, headers: Any = SAME, **form: Any) -> Page:
        return await self._ask("POST", path, form, headers)

    async def log_in(self, email: str = "", step: int = 0, **form: Any) -> Page:
        """:param step: of the code, if there is a second factor; each opens once"""
        code = code_of(self.secret, step) if self.secret else ""
        sent = {"email": email or self.email, "password": PASSWORD, "code": code, **form}
        return await self.post("/console/login", **sent)

    async def enrol(self) -> Page:
        """Set up a second factor with the code before the one of now; return the last page."""
        found = SECRET.search((await self.get("/console/factor")).body)
        assert found
        self.secret = found[1]
        code = await earlier_code(found[1])
        done = await self.post("/console/factor", secret=self.secret, code=code)
        assert done.status == 200, done
        return done

    async def _ask(self, method: str, path: str, form: Any, headers: dict[str, str] = SAME) -> Page:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {"Cookie": cookies, **headers, **self.headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, self.url + path, data=form, headers=sent, allow_redirects=False
            ) as response,
        ):
            for name, found in response.cookies.items():
                assert method == "POST" or path.startswith("/console/oidc/callback?")
                assert (found["secure"], found["httponly"], found["path"]) == (True, True, "/")
                self.cookies[name] = found.value
            text, location = await response.text(), response.headers.get("Location")
            return Page(response.status, text, location, response.headers)


async def person(stack: System, *roles: str, language: str = "en", name: str = "Ewa Lis") -> Person:
    """Invite somebody with these roles, and let them in."""
    email = fresh_address()
    link = await invitation(stack, email, *roles, language=language, name=name)
    found = Person(stack.url, email)
    entered = await found.post(link, password=PASSWORD)
    assert (entered.status, entered.location) == (303, "/console/"), entered
    if NEED_FACTOR & {*roles}:
        await found.enrol()
    return found


async def invitation(
    stack: System, email: str, *roles: str, language: str = "en", name: str = "Ewa Lis"
) -> str:
    """Return the path of an invitation."""
    body: dict[str, Any] = {"email": email, "name": name, "roles": list(roles)}
    body |= {"language": language, "show_link": True}
    made = await stack.http("POST", "/api/staff", body, key="admin")
    assert made.status == 201, made
    return str(urlsplit(made.body["link"]).path)
