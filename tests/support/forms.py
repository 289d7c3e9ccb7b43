"""Sends the shipped form as a page or a program does."""

import uuid
from pathlib import Path
from typing import Any

from libs.domain import forms
from tests.support.eventually import eventually
from tests.support.shipped import EXAMPLE, whole
from tests.support.stack import Stack
from tests.support.system import Answer, System
from tests.support.toml import write_toml

CONTACT = forms.load(EXAMPLE / "forms.toml")["contact"]
SITE = CONTACT.origins[0]


WIDE = dict.fromkeys(("address", "form"), "1000000 per hour")


def config(folder: Path, *names: str, **options: Any) -> dict[str, str]:
    """Write the shipped form with these options, under each name; return the setting."""
    contact = whole("forms")["forms"]["contact"] | options
    path = folder / "forms.toml"
    write_toml(path, {"forms": dict.fromkeys(names or ("contact",), contact)})
    return {"FORMS_CONFIG": str(path)}


def new_key() -> str:
    return uuid.uuid4().hex


async def submit(
    system: System, fields: dict[str, Any], *, key: str = "", headers: Any = (), **more: Any
) -> Answer:
    body = {"form": "contact", "form_version": "1", "language": "pl", "fields": fields} | more
    sent = {"Origin": SITE, "Idempotency-Key": key or new_key(), **dict(headers)}
    return await system.http("POST", "/api/leads", body, headers=sent)


async def agreed(system: System, language: str = "pl") -> dict[str, str]:
    """Return the consent of a person who ticks the box that the form shows."""
    form = (await system.http("GET", f"/api/forms/contact?language={language}")).body
    return {each["purpose"]: each["sha256"] for each in form["consents"]}


def stored(stack: Stack, email: str) -> list[Any]:
    return stack.query("SELECT * FROM followups.lead_submission WHERE email = %s", email)


async def suspected(system: System, email: str) -> Any:
    """Return the submission that is kept apart; the oldest come first."""

    async def held() -> Any:
        found = await system.http("GET", "/api/leads/suspected?limit=1000", key="service")
        return next((one for one in found.body["items"] if email in str(one["fields"])), None)

    return await eventually(held, 60)


def alerts(stack: Stack, submission_id: str) -> list[Any]:
    """Return the rows of the ledger for a submission's event."""
    return stack.query("SELECT * FROM alerts.delivery WHERE alert_id = %s", submission_id)


async def arrived(stack: Stack, email: str, times: int = 1) -> list[Any]:
    """Wait until Slack has a lead's message so many times, and nothing is on its way any more."""
    await eventually(
        stack.slack_texts, 60, so=lambda found: sum(email in text for text in found) >= times
    )
    await eventually(lambda: quiet(stack), 60)
    found = [text for text in await stack.slack_texts() if email in text]
    assert len(found) == times, found
    return found


async def quiet(stack: Stack) -> bool:
    """Return whether no lead and no alert of one is on its way."""
    if any(stack.query(f"SELECT 1 FROM {name}.outbox") for name in ("followups", "alerts")):
        return False
    names = ("followups.leads", "followups.leads.retry", "alerts.intake", "alerts.slack")
    queues = {queue["name"]: queue for queue in stack.vhost.call("GET", "queues")}
    if any(queues[name].get("messages", 0) for name in names if name in queues):
        return False
    return await stack.balanced() is not None
