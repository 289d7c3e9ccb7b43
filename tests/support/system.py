"""The system as a caller sees it: its HTTP, and what the sandbox got. Wherever it runs."""

import json
import re
import uuid
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from libs.domain import company
from tests.support.eventually import eventually
from tests.support.sandbox import SandboxApi

WORDING = company.load(Path(__file__).parents[2] / "config.example/company.toml").asking(
    "form", "pl"
)
"""What the shipped configuration has a form ask."""

LEAD = {
    "message": "Dzień dobry, remont kuchni, 80 m2, budżet 250 tys. zł, od marca.",
    "language": "pl",
}
"""With an address it is qualified at once; with a number, two of them would be one lead."""


def fresh_address() -> str:
    return f"anna.{uuid.uuid4().hex[:12]}@example.pl"


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    """The JSON, or the text of what is none."""
    headers: Mapping[str, str]


class System:
    def __init__(self, url: str, values: Mapping[str, str], sandbox: SandboxApi) -> None:
        """Take the settings as .env has them; of them, the two API keys."""
        self.url = url
        self.values = dict(values)
        self.sandbox = sandbox

    async def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | aiohttp.FormData | None = None,
        csv: str | None = None,
        raw: str | bytes | AsyncIterable[bytes] | None = None,
    ) -> Answer:
        """Call the gateway; a redirect is the answer.

        :param key: `service` or `admin`
        """
        sent = dict(headers or {})
        data: Any = form or raw
        if csv is not None:
            data, sent["Content-Type"] = csv.encode(), sent.get("Content-Type", "text/csv")
        if key is not None:
            name = {"service": "X-API-KEY", "admin": "X-ADMIN-API-KEY"}[key]
            sent[name] = self.values[f"{key.upper()}_API_KEY"]
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, self.url + path, json=body, data=data, headers=sent, allow_redirects=False
            ) as answer,
        ):
            text = await answer.text()
            is_json = answer.content_type.endswith("json")
            return Answer(
                answer.status, json.loads(text) if is_json else text, dict(answer.headers)
            )

    # What the customer's programs and people do all day.

    async def alert(self, text: str, **more: Any) -> str:
        """Send a Slack alert; the id it was accepted under.

        :param more: more fields of the request; `key` is the Idempotency-Key
        """
        key = more.pop("key", None)
        answer = await self.http(
            "POST",
            "/api/alerts",
            {"event_type": "slack_alert", "payload": {"text": text}, **more},
            key="service",
            headers={"Idempotency-Key": key} if key else None,
        )
        assert answer.status == 202, answer
        return str(answer.body["id"])

    async def own_key(self, *scopes: str) -> dict[str, str]:
        """Have the console make a key with these scopes; return the header that carries it."""
        return {"X-API-KEY": (await self.make_key(*scopes))["key"]}

    async def make_key(self, *scopes: str) -> Any:
        ends = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        wanted = {"name": "own", "purpose": "a test", "owner": "Ewa", "expires_at": ends}
        made = await self.http("POST", "/api/keys", wanted | {"scopes": scopes}, key="admin")
        assert made.status == 201, made
        return made.body

    async def opt_in(self, address: str) -> None:
        """Agree in a form, and confirm it by the mailed link where that is asked for."""
        answer = await self.http("POST", "/api/opt-in", {"email": address, "text": WORDING.text})
        assert answer.status == 200, answer
        if self.values.get("DOUBLE_OPT_IN") != "off":
            await self.confirm(address)

    async def confirm(self, address: str) -> None:
        assert (await self.http("POST", await self.link(address, "/opt-in/confirm"))).status == 200

    async def links(self, address: str, path: str) -> list[str]:
        """Return where the mails to an address lead to, of those that lead to this path."""
        found = [
            re.search(rf"{re.escape(path)}\?token=[\w.~-]+", mail["Text"])
            for mail in await self.sandbox.mails(address)
        ]
        return [link[0] for link in found if link]

    async def follow_up(self, address: str, *, delay_seconds: int = 0) -> Any:
        answer = await self.http(
            "POST",
            "/api/followups",
            {"email": address, "delay_seconds": delay_seconds},
            key="service",
        )
        assert answer.status in {200, 202}, answer
        return answer.body

    async def link(self, address: str, path: str) -> str:
        """Wait for a mail to an address that leads to this path; return where the newest leads."""
        return (await eventually(lambda: self.links(address, path), 40))[-1]

    async def audit(self, who: str) -> Any:
        """Return what consent's trail has of an address or a number, and of its erasure."""
        return (await self.http("GET", f"/api/consent/audit/{who}", key="admin")).body

    async def consents(self, who: str) -> Any:
        """Return how the consents of an address or a number stand."""
        return (await self.http("GET", f"/api/unsubscribe/status/{who}", key="service")).body

    async def in_slack(self, *texts: str) -> None:
        """Wait until each of these has come to Slack."""

        def have_come(got: list[str]) -> bool:
            return all(text in " ".join(got) for text in texts)

        await eventually(self.slack_texts, 60, so=have_come)

    async def until(self, alert_id: str, state: str) -> None:
        await eventually(lambda: self.state(alert_id), so=lambda found: found.get("state") == state)

    async def slack_texts(self) -> list[str]:
        return [str(one["body"]) for one in await self.sandbox.received("slack")]

    async def state(self, alert_id: str) -> Any:
        return (await self.http("GET", f"/api/alerts/{alert_id}", key="service")).body

    async def ledger(self) -> dict[str, Any]:
        """Return P1's equation, which holds at any moment."""
        check: dict[str, Any] = (await self.http("GET", "/api/ledger/check", key="admin")).body
        terms = ("delivered", "pending", "failed", "discarded", "in_doubt")
        assert check["accepted"] == sum(check[term] for term in terms), check
        return check

    async def is_held(self, target: str, status: int) -> bool:
        """Say whether alerts knows that the target refused us by this answer."""
        breakers = await self.http("GET", "/api/breakers", key="admin")
        said = f"refused us: {status}"
        return breakers.status == 200 and bool(breakers.body[target]["paused"] == said)

    async def balanced(self) -> dict[str, Any] | None:
        """Return it when nothing is on its way any more."""
        check = await self.ledger()
        return check if check["pending"] == 0 and check["ok"] else None
