"""Settings that suit the sandbox but not production; see docs/going-live.md."""

import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from deploy.check import ADDRESSES, RESERVED, examples, is_production
from deploy.inspection import say
from deploy.up.environment import EXAMPLE_CONFIG
from libs.common.process.config_file import Duration
from libs.common.process.finding import Finding

PROVIDERS = {
    "slack": "SLACK_WEBHOOK_URL",
    "monday": "MONDAY_API_URL",
    "sms": "SMS_API_URL",
    "email": "SMTP_HOST",
    "webhook": "WEBHOOK_URL",
}
SANDBOX = {"", "sandbox", "mailpit"}
"""Hosts of the sandbox: the default, and in compose."""
OFF = {"off", "false", "0", "no", "f", "n"}


def findings(values: Mapping[str, str], alerts: Path, *, live: bool) -> Iterator[Finding]:
    """:param alerts: alerts.toml, beside the other files of the configuration
    :param live: check a trial as well, to see what is left to do
    """
    yield from _mail(values)
    real = [name for name, variable in PROVIDERS.items() if values[variable] not in SANDBOX]
    if not real and not live:
        yield say("trial")
        return
    shipped = examples(values, alerts.parent)
    others = (each for each in shipped if each[0] not in ADDRESSES)  # see _mail
    left = [say("example", name=name, fault=fault) for name, fault in others]
    faults = [*_settings(values), *left, *_targets(alerts, real), *_promise(alerts)]
    yield from faults or [say("live")]


def _mail(values: Mapping[str, str]) -> Iterator[Finding]:
    real = values["SMTP_HOST"] not in SANDBOX
    if real:
        reserved = [name for name, _ in examples(values, Path()) if name in ADDRESSES]
        given = ", ".join(f"{name} is {values[name]}" for name in reserved)
        names = ", ".join(reserved or ADDRESSES)
        yield say("example-addresses" if reserved else "addresses", given=given, names=names)
    yield say("dkim-unseen" if real or is_production(values) else "dkim-sandbox")


def _settings(values: Mapping[str, str]) -> Iterator[Finding]:
    parts = urlsplit(values["PUBLIC_BASE_URL"])
    host = parts.hostname or ""
    if not host or _is_private(host) or RESERVED.fullmatch(host):
        yield say("url-private", host=host or "this machine")
    elif parts.scheme != "https":
        yield say("url-http", host=host)
    elif not values["TRUSTED_PROXIES"]:
        yield say("proxy-untrusted")
    if values["FOLLOWUP_QUIET_HOURS"].lower() in OFF:
        yield say("no-quiet-hours")
    if not values["HEARTBEAT_URL"]:
        yield say("unwatched")


def _promise(config: Path) -> Iterator[Finding]:
    """Yield each chain that takes longer than the chat promises an answer."""
    read = TypeAdapter(Duration).validate_python
    try:
        answers, followups = (
            tomllib.loads(path.read_text(encoding="utf-8"))
            for path in (config, config.with_name("followups.toml"))
        )
        promised = read(followups.get("lead", {}).get("answer_within", "8h"))
        for event in ("lead.qualified", "lead.submitted"):
            chain = answers["answers"].get(event, {})
            waits = sum((read(step["wait"]) for step in chain.get("chain", ())), timedelta())
            takes = read(chain.get("within", "0s")) + waits * (1 + chain.get("repeat", 0))
            if takes > promised:
                yield say("promise", event=event, takes=takes, promised=promised)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # reported as a configuration fault


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host  # localhost, or a name of this network


def _targets(config: Path, real: list[str]) -> Iterator[Finding]:
    """Yield the example's people and values that alerts.toml still contains."""
    try:
        own, shipped = (
            tomllib.loads(path.read_text(encoding="utf-8"))
            for path in (config, EXAMPLE_CONFIG / "alerts.toml")
        )
        people = own.get("people", {}).items()
        names = [each["name"] for key, each in people if each == shipped["people"].get(key)]
        left = [name for name in PROVIDERS if name in own["targets"] and name not in real]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # reported as a configuration fault
    if names:
        yield say("example-people", names=", ".join(names))
    if left:
        variables = ", ".join(PROVIDERS[name] for name in left)
        yield say("still-sandbox", names=", ".join(left), variables=variables)
