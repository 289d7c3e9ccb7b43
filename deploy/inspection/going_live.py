"""Settings that suit the sandbox but not production (docs/going-live.md), and the forms' pages."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from email.utils import parseaddr
from ipaddress import ip_address
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pydantic import TypeAdapter

from deploy.check import ADDRESSES, RESERVED, examples, is_production
from deploy.inspection import say
from deploy.up.environment import EXAMPLE_CONFIG
from deploy.up.process import HOST
from libs.common.process.config_file import ConfigFile, Duration
from libs.common.process.finding import Finding
from libs.domain import forms, shipped

PROVIDERS = {
    "slack": "SLACK_WEBHOOK_URL",
    "monday": "MONDAY_API_URL",
    "sms": "SMS_API_URL",
    "email": "SMTP_HOST",
    "webhook": "WEBHOOK_URL",
}
SANDBOX = {"", "sandbox", "mailpit"}
"""Hosts of the sandbox: the default, and in compose."""
PATIENCE = 5.0
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
    found = examples(values, alerts.parent)
    others = (each for each in found if each[0] not in ADDRESSES)  # see _mail
    left = [say("example", name=name, fault=fault) for name, fault in others]
    faults = [*_settings(values), *left]
    with suppress(SystemExit, ValueError, LookupError, TypeError, AttributeError):
        # Else it is reported as a configuration fault.
        faults += _targets(alerts, real)
        faults += _promise(alerts)
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
    back, sender = (
        parseaddr(values[name])[1].lower().rpartition("@")[2]
        for name in ("BOUNCE_ADDRESS", "MAIL_FROM")
    )
    if back and not f".{back}".endswith(f".{sender}") and not sender.endswith(f".{back}"):
        yield say("return-path", back=back, sender=sender)
    if values["FOLLOWUP_QUIET_HOURS"].lower() in OFF:
        yield say("no-quiet-hours")
    if not values["HEARTBEAT_URL"]:
        yield say("unwatched")


def _promise(config: Path) -> Iterator[Finding]:
    """Yield each chain that takes longer than the chat promises an answer."""
    read = TypeAdapter(Duration).validate_python
    answers = shipped.read(config, "alerts").whole["answers"]
    followups = ConfigFile(config.with_name("followups.toml")).raw
    promised = read(followups.get("lead", {}).get("answer_within", "8h"))
    for event in ("lead.qualified", "lead.submitted"):
        chain = answers.get(event, {})
        waits = sum((read(step["wait"]) for step in chain.get("chain", ())), timedelta())
        takes = read(chain.get("within", "0s")) + waits * (1 + chain.get("repeat", 0))
        if takes > promised:
            yield say("promise", event=event, takes=takes, promised=promised)


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host  # localhost, or a name of this network


def _targets(config: Path, real: list[str]) -> Iterator[Finding]:
    """Yield the example's people and values that alerts.toml still contains."""
    own = shipped.read(config, "alerts").whole
    example = ConfigFile(EXAMPLE_CONFIG / "alerts.toml").raw["people"]
    people = own.get("people", {}).items()
    names = [each["name"] for key, each in people if each == example.get(key)]
    left = [name for name in PROVIDERS if name in own["targets"] and name not in real]
    if names:
        yield say("example-people", names=", ".join(names))
    if left:
        variables = ", ".join(PROVIDERS[name] for name in left)
        yield say("still-sandbox", names=", ".join(left), variables=variables)


def pages(values: Mapping[str, str], folder: Path) -> Iterator[Finding]:
    """Yield whether each form opens on the pages that show it, as a browser asks the gateway.

    :param folder: of .env
    """
    sandbox = f"http://{HOST}:{values['SANDBOX_PORT']}"
    try:
        known = forms.load(folder / values["FORMS_CONFIG"], sandbox)
    except SystemExit:
        return  # reported as a configuration fault
    shown = [(name, site) for name, form in known.items() for site in form.origins]
    if known and all(values[each] in SANDBOX for each in PROVIDERS.values()):  # a trial
        shown.append((next(iter(known)), sandbox))
    gateway = os.environ.get("OSTOJA_URL") or f"http://{HOST}:{values['GATEWAY_PORT']}"
    closed = False
    for name, site in dict.fromkeys(shown):
        asked = Request(f"{gateway}/api/forms/{name}", headers={"Origin": site})
        try:
            with urlopen(asked, timeout=PATIENCE) as answer:
                allowed = answer.headers["Access-Control-Allow-Origin"]
        except HTTPError as error:
            error.close()
            allowed = None
        except OSError:
            return  # the gateway is away, which is reported
        if allowed != site or site not in known[name].origins:
            closed = True
            yield say("form-closed", name=name, site=site)
    if shown and not closed:
        yield say("form-open", names=", ".join(known))
