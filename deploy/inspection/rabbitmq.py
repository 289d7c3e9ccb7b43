"""RabbitMQ as its administrator sees it: accounts, exchanges, policies and queues as in the code.

The services' own accounts may not see the accounts of others, nor policies and bindings.
"""

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from deploy import provision
from deploy.inspection import SAID, say
from deploy.up.environment import AMQP_PASSWORDS, SERVICES, VHOST
from deploy.up.servers import manage
from libs.common.messaging.topology import Queue
from libs.common.process.finding import Finding, clock, of_header
from libs.domain import shipped
from services.alerts import topology as alerts
from services.alerts.channels.channel import Target
from services.alerts.config.targets import Config
from services.consent import topology as consent
from services.console import topology as console
from services.followups import topology as followups

PATIENCE = 5.0
PREFIXES = tuple(f"{service}." for service in SERVICES)
EPOCH = "alerts.epoch."  # one queue, named at random when the broker's disk was new
KINDS = {  # of RabbitMQ's definitions, with what identifies one
    "users": ("name",),
    "permissions": ("user", "vhost"),
    "exchanges": ("name",),
    "policies": ("name",),
    "queues": ("name",),
    "bindings": ("destination", "source", "routing_key"),
}


def findings(
    url: str,
    values: Mapping[str, str],
    tls_dir: Path | None,
    alerts_config: Path,
    now: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """:param url: of the management API
    :param values: of .env
    :param now: this machine's clock
    """
    headers: dict[str, str] = {}
    account = ("admin", values["RABBITMQ_ADMIN_PASSWORD"])
    ask = partial(manage, url, account, "GET", tls_dir=tls_dir, seconds=PATIENCE, headers=headers)
    before = now()
    try:
        there = ask("definitions")
    except (OSError, HTTPException, ValueError) as error:
        status = f"HTTP status {error.code}" if isinstance(error, HTTPError) else ""
        why = status or getattr(error, "reason", None) or error
        yield say("rabbitmq-away", url=url, why=why)
        return
    yield say("rabbitmq", version=there["rabbitmq_version"])
    yield clock("RabbitMQ", of_header(headers.get("date", "")), before, now(), exact_to=1.0)
    yield from _alarms(ask)
    try:
        policies = provision.retry_policies(alerts_config)
        queues = expected(configured(alerts_config))
    except (SystemExit, ValueError, LookupError, AttributeError) as error:
        yield say("queues-unknown", file=alerts_config, error=error)
        return
    passwords = {service: values[name] for service, name in AMQP_PASSWORDS.items()}
    wanted = provision.definitions(passwords, policies) | _declared(queues.values())
    faults = [*_differences(wanted, there), *_foreign(there)]
    faults += _applied(ask, queues, policies)
    yield from faults
    for part in sorted({SAID[kind]["part"] for kind in KINDS} - {each["part"] for each in faults}):
        yield say("declared", what=part)


def configured(alerts_config: Path) -> Config:
    """Read only the settings of alerts.toml that its queues depend on."""
    raw = shipped.read(alerts_config, "alerts").whole
    timing = ("retry_delays", "wait_tiers", "max_age")
    targets: dict[str, Any] = {
        name: Target.model_construct(**{key: given[key] for key in timing if key in given})
        for name, given in raw["targets"].items()
    }
    return Config.model_construct(routes={}, targets=targets)


def expected(config: Config) -> dict[str, Queue]:
    every = (
        *alerts.intake_queues(),
        *alerts.data_subject_queues(),
        *alerts.target_queues(config.targets),
        *consent.QUEUES,
        *console.QUEUES,
        *followups.QUEUES,
    )
    return {queue.name: queue for queue in every}


def _declared(queues: Collection[Queue]) -> dict[str, list[dict[str, Any]]]:
    return {
        "queues": [
            {"name": each.name, "durable": True, "arguments": dict(each.arguments)}
            for each in queues
        ],
        "bindings": [
            {"source": bound.exchange.name, "routing_key": bound.key, "destination": each.name}
            for each in queues
            for bound in each.bindings
        ],
    }


def _differences(
    wanted: Mapping[str, Sequence[Mapping[str, Any]]], there: Mapping[str, Any]
) -> Iterator[Finding]:
    for kind, key in KINDS.items():
        known = {
            tuple(each[name] for name in key): each
            for each in there[kind]
            if each.get("vhost", VHOST) == VHOST
        }
        for each in wanted[kind]:
            of = tuple(each[name] for name in key)
            if (found := known.get(of)) is None:
                yield say(kind, what=f"{' '.join(of)} does not exist")
            elif differ := sorted(_differing(each, found)):
                yield say(kind, what=f"{' '.join(of)} differs in {', '.join(differ)}")


def _differing(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        if isinstance(value, dict):
            given = found.get(name) or {}
            yield from (each for each in {*value, *given} if value.get(each) != given.get(each))
        elif name == "password":
            hashed = base64.b64decode(found["password_hash"])  # a salt of four bytes, then SHA-256
            if hashlib.sha256(hashed[:4] + value.encode()).digest() != hashed[4:]:
                yield name
        elif found.get(name) != value:
            yield name


def _foreign(there: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield accounts and rights that nobody needs."""
    if any(each["name"] == "guest" for each in there["users"]):
        yield say("guest")
    for each in there["permissions"]:
        if each["user"] in provision.RIGHTS and each["vhost"] != VHOST:
            yield say("foreign-vhost", user=each["user"], vhost=each["vhost"])


def _applied(
    ask: Callable[[str], Any], queues: Mapping[str, Queue], policies: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Yield queues of no service, and those with other policies, such as an operator's."""
    for each in ask(f"queues/{quote(VHOST, safe='')}"):
        name = each["name"]
        if name not in queues:
            stray = name.startswith(PREFIXES) and not name.startswith(EPOCH)
            if stray and not each.get("exclusive"):
                yield say("stray-queue", name=name, messages=each.get("messages", 0))
            continue
        applying = [one for one in policies if re.search(one["pattern"], name)]
        ours = max(applying, key=lambda one: int(one["priority"]), default=None)
        applied = each.get("effective_policy_definition") or {}
        if applied != (ours["definition"] if ours else {}):
            by = each.get("operator_policy") or each.get("policy") or "none"
            yield say("other-policy", name=name, by=by, applied=applied)


def _alarms(ask: Callable[[str], Any]) -> Iterator[Finding]:
    try:
        ask("health/checks/alarms")
    except HTTPError as error:
        with error:
            alarms = json.loads(error.read() or b"{}").get("alarms", [])
        names = sorted({str(each.get("resource")) for each in alarms})
        yield say("rabbitmq-alarm", what=" and ".join(names) or "resources")
