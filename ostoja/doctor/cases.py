"""Cases: can staff answer them, and is someone on call."""

from collections.abc import Iterator, Mapping

from ostoja.doctor.deployment import RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, wrong
from ostoja.doctor.web import ask


def check(deployment: Deployment, key: str) -> Iterator[Finding]:
    """:param key: the admin key that this tool sends"""
    yield from _buttons(deployment.values)
    response = ask(f"{deployment.gateway}/api/oncall", {"X-ADMIN-API-KEY": key})
    if response.status != 200:
        return  # reported with the gateway and the services
    for name, schedule in sorted(response.body["schedules"].items()):
        gap = schedule["gap_seconds"] / 3600
        fault = schedule["fault"]
        if fault or gap:
            found = fault or f"no one has the shift {name} for {gap:.1f} h of the next day"
            yield wrong("on call", found, "docs/runbooks/oncall-gap.md")
        else:
            yield ok("on call", f"{name}: {schedule['name']} now, and no gap within a day")


def _buttons(values: Mapping[str, str]) -> Iterator[Finding]:
    if values["SLACK_BOT_TOKEN"] and not values["SLACK_SIGNING_SECRET"]:
        yield wrong(
            "Slack",
            "SLACK_BOT_TOKEN is set without SLACK_SIGNING_SECRET: no button of a message works",
            f"copy the Signing Secret of your Slack app into .env, then {RESTART}",
        )
