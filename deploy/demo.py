"""`make demo`: shows what Ostoja does on the running system. Each step checks what it shows.

demo.yaml has the chapters, and says how to read them. Addresses and keys come from .env, or from
the environment in a container.
"""

import hashlib
import json
import os
import re
import secrets
import sys
import time
import urllib.error
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email import message_from_string
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import jinja2
import yaml
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from standardwebhooks import Webhook, WebhookVerificationError

from deploy.sandbox import comes_back
from deploy.up import environment
from deploy.up.process import HOST
from libs.common import beside

REAL = ("SLACK_WEBHOOK_URL", "MONDAY_API_URL", "SMS_API_URL", "SMTP_HOST", "WEBHOOK_URL")
WIDTH = 78
CHAPTERS = yaml.safe_load(beside.text(__file__, ".yaml"))
JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined)  # noqa: S701 - it makes no page


class DemoError(Exception):
    """The text is shown to the user."""


class Teller:
    """Prints what happens; in colour on a terminal."""

    def __init__(self) -> None:
        self._console = Console(width=WIDTH, highlight=False, markup=False, emoji=False)
        self._step = 0

    def line(self, text: str, style: str = "bold") -> None:
        self._console.print(text, style=style)

    def step(self, title: str, why: str) -> None:
        self._step += 1
        self.line(f"\n{self._step}. {title}")
        self._console.print(Padding(why, (0, 0, 0, 3)), style="dim")

    def says(self, who: str, what: str) -> None:
        row = Table.grid()
        row.add_column(no_wrap=True, style="green" if who == "ok" else "cyan")
        row.add_row(f"{who:>10} {':' if who == 'ok' else '>'} ", Text(what))
        self._console.print(row)


class World:
    """The gateway, the sandbox's providers, and the mailbox. Public methods are for demo.yaml."""

    def __init__(self) -> None:
        values = environment.load(environment.ROOT / ".env")
        if real := [name for name in REAL if values.get(name)]:
            raise DemoError(
                f"the settings name real providers ({', '.join(real)}); nothing was sent"
            )
        self.gateway, self.sandbox, self._mail = (
            os.environ.get(f"DEMO_{name}_URL") or f"http://{HOST}:{values[f'{name}_PORT']}"
            for name in ("GATEWAY", "SANDBOX", "SANDBOX_MAIL")
        )
        # Every form takes those of the gateway's own origin.
        self.public = values["PUBLIC_BASE_URL"] or self.gateway
        self.asks_twice = values.get("DOUBLE_OPT_IN") != "off"
        self.is_local = HOST in self.sandbox
        self._keys = {
            "service": {"X-API-KEY": values["SERVICE_API_KEY"]},
            "admin": {"X-ADMIN-API-KEY": values["ADMIN_API_KEY"]},
        }
        self._people: dict[str, Callable[..., Any]] = {}

    def call(
        self,
        call: str,
        *,
        key: str = "",
        by: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
        body: Any = None,
        form: Mapping[str, str] | None = None,
        mail: bytes | None = None,
    ) -> Any:
        """Call the gateway, or a URL; return the answer's JSON, or its text.

        :param key: service or admin
        :param by: a person with a browser; it keeps cookies
        :raises DemoError: it did not answer, or with an error
        """
        method, place = call.split()
        url = place if "://" in place else self.gateway + place
        sent, data = {**headers, **self._keys.get(key, {})}, None
        if form is not None:
            data = urlencode(form).encode()
        elif mail is not None:
            data, sent["Content-Type"] = mail, "message/rfc822"
        elif body is not None:
            data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        send = self._people.setdefault(by, _browser()) if by else urlopen
        try:
            with send(Request(url, data, sent, method=method), timeout=60) as answer:
                text = str(answer.read().decode())
                return json.loads(text) if "json" in answer.headers.get_content_type() else text
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise DemoError(f"{method} {url} answered {error.code}: {said}") from None
        except OSError as error:
            raise DemoError(f"{method} {url}: {error}; is it running? (make up)") from None

    def get(self, path: str, key: str = "service") -> Any:
        return self.call(f"GET {path}", key=key)

    def received(self, target: str, about: str = "") -> list[Any]:
        got = self.call(f"GET {self.sandbox}/received?target={target}")["received"]
        return [one["body"] for one in got if about in str(one["body"])]

    def events(self, secret: str) -> list[Any]:
        """Return the events that the sandbox got with a signature by this secret."""
        found = []
        for one in self.call(f"GET {self.sandbox}/received?target=subscriber")["received"]:
            body = json.dumps(one["body"], ensure_ascii=False)  # as alerts has written it
            with suppress(WebhookVerificationError):
                found.append(Webhook(secret).verify(body, one["headers"]))
        return found

    def mails(self, address: str = "", subject: str = "") -> list[Any]:
        """Return the mails to this address with this in their subject, newest first."""
        api = f"GET {self._mail}/api/v1/message"
        return [
            self.call(f"{api}/{mail['ID']}")
            for mail in self.call(f"{api}s?limit=500")["messages"]
            if address in str(mail["To"]) and subject in str(mail["Subject"])
        ]

    def marketing(self, address: str) -> list[Any]:
        """Return the follow-ups that this address got, newest first, each with its headers."""
        found = [(mail, message_from_string(self.source(mail))) for mail in self.mails(address)]
        return [mail | {"headers": head} for mail, head in found if head["List-Unsubscribe"]]

    def source(self, mail: Mapping[str, Any]) -> str:
        """Return a mail as it came: not every mailbox with this API lists the list headers."""
        return str(self.call(f"GET {self._mail}/api/v1/message/{mail['ID']}/raw"))

    def link(self, address: str, path: str) -> str:
        """Return the link to this path from the newest mail to this address that has one."""
        texts = "\n".join(mail["Text"] for mail in self.mails(address))
        return self.path(self.find(rf"https?://\S+{path}\?token=[\w.~-]+", texts))

    def comes_back(self, kind: str, mail: Mapping[str, Any]) -> bytes:
        return comes_back.mail(kind, self.source(mail).encode(), mail["ReturnPath"])

    @staticmethod
    def find(pattern: str, text: str) -> str:
        """Return the pattern's first group, or all that it fits.

        :raises DemoError: it does not fit
        """
        if (found := re.search(pattern, text)) is None:
            raise DemoError(f"nothing fits {pattern}: {text[:300]}")
        return found[found.re.groups and 1]

    @staticmethod
    def hidden(page: str) -> dict[str, str]:
        """Return the hidden fields of a page's form."""
        return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))

    @staticmethod
    def path(link: str) -> str:
        """Drop the host: the gateway's address here may differ from the one in mails."""
        parts = urlsplit(link)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    @staticmethod
    def address(name: str) -> str:
        return f"{name}.{uuid.uuid4().hex[:4]}@example.com"

    @staticmethod
    def phone() -> str:
        """Return a new number: a known one would make its owner an existing lead."""
        return f"{600_000_000 + uuid.uuid4().int % 1_000_000}"

    @staticmethod
    def token() -> str:
        return secrets.token_hex(16)

    @staticmethod
    def sha256(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    @staticmethod
    def within(seconds: float) -> str:
        return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def _browser() -> Callable[..., Any]:
    # The console's cookie is Secure, and the demo speaks http.
    policy = DefaultCookiePolicy(secure_protocols=("http", "https"))
    opener = build_opener(HTTPCookieProcessor(CookieJar(policy)))
    opener.addheaders = [("Sec-Fetch-Site", "same-origin")]
    return opener.open


class Show:
    """Runs the steps of demo.yaml."""

    def __init__(self, world: World, tell: Teller) -> None:
        self._world, self._tell = world, tell
        self._called = time.monotonic()
        known = {name: getattr(world, name) for name in dir(world) if not name.startswith("_")}
        self._names = {**known, "took": self._took}

    def run(self, steps: Iterable[Mapping[str, Any]]) -> None:
        """:raises DemoError: a step failed"""
        for each in steps:
            step = dict(each)
            if self._value(step.pop("when", "true")):
                verb = next(iter(step))
                if verb in {"title", "each", "let", "pause", "check", "wait", "call"}:
                    getattr(self, f"_{verb}")(**step)
                else:
                    self._tell.says(self._filled(verb), self._filled(step[verb]))

    def _title(self, title: str, why: str, steps: Any, after: Any = ()) -> None:
        self._tell.step(title, why)
        try:
            self.run(steps)
        finally:
            self.run(after)

    def _each(self, each: str, steps: Any) -> None:
        for one in self._value(each):
            self._names["one"] = one
            self.run(steps)

    def _let(self, let: Mapping[str, str]) -> None:
        for name, what in let.items():
            self._names[name] = self._value(what)

    def _pause(self, pause: float) -> None:
        time.sleep(pause)

    def _check(self, check: str, what: str) -> None:
        if not self._value(check):
            raise DemoError(f"not true: {self._filled(what)}")

    def _wait(self, wait: str, what: str, gives: str = "", most: float = 40) -> None:
        deadline = time.monotonic() + most
        while True:
            with suppress(DemoError):  # 404: accepted, but not there yet
                if found := self._value(wait):
                    self._names[gives] = found
                    return
            if time.monotonic() > deadline:
                raise DemoError(f"waited {most:.0f} s for: {self._filled(what)}")
            time.sleep(0.1)

    def _call(self, gives: str = "", refused: int = 0, **given: Any) -> None:
        self._called = time.monotonic()
        try:
            self._names[gives] = self._world.call(**self._filled(given))
        except DemoError as error:
            if f"answered {refused}:" not in str(error):
                raise
        else:
            if refused:
                raise DemoError(f"{given['call']} was not refused with {refused}")

    def _took(self) -> str:
        return f"{time.monotonic() - self._called:.1f} s"

    def _value(self, expression: str) -> Any:
        compiled = JINJA.compile_expression(expression, undefined_to_none=False)
        found: Any = compiled(**self._names)
        return list(found) if hasattr(found, "__next__") else found

    def _filled(self, what: Any) -> Any:
        """Fill in the texts of a value; one that begins with `=` is an expression."""
        if isinstance(what, dict):
            return {name: self._filled(one) for name, one in what.items()}
        if not isinstance(what, str):
            return what
        if what.startswith("="):
            return self._value(what[1:])
        return JINJA.from_string(what).render(self._names)


def main() -> int:
    tell, began = Teller(), time.monotonic()
    tell.line("Ostoja on the running system; each ok has just been checked.")
    try:
        world = World()
        Show(world, tell).run(CHAPTERS)
    except (DemoError, jinja2.TemplateError) as error:
        first = error.__context__ if isinstance(error.__context__, DemoError) else error
        print(f"\nFAILED: {first}", file=sys.stderr)
        return 1
    done = f"Done in {time.monotonic() - began:.0f} s."
    tell.line(f"\n{done} {world.public}/docs describes every call.", "none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
