"""RabbitMQ: each account can connect, and everything is declared as in the code."""

import asyncio
import base64
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aio_pika
from aio_pika.exceptions import AMQPError

from deploy import provision
from deploy.up.environment import SERVICES, VHOST
from libs.common.messaging.topology import Queue
from libs.common.process import sockets
from ostoja.doctor.clock import judged, of_header
from ostoja.doctor.deployment import PATIENCE, RESTART, Deployment
from ostoja.doctor.finding import Finding, ok, wrong
from ostoja.doctor.web import Response, ask
from services.alerts import topology as alerts
from services.alerts.channels.channel import Target
from services.alerts.config.targets import Config
from services.consent import topology as consent
from services.console import topology as console
from services.followups import topology as followups

PREFIXES = tuple(f"{service}." for service in SERVICES)
EPOCH = "alerts.epoch."  # one queue, named at random when the broker's disk was new
REDECLARE = (
    "this cannot be changed: in the UI move its messages elsewhere and delete it, then restart its "
    "service, which declares it again"
)


def check(deployment: Deployment, now: Callable[[], float]) -> Iterator[Finding]:
    """:param now: this machine's clock, as `time.time`"""
    for service in SERVICES:
        for url in sockets.each_host(deployment.amqp_url(service)):
            if fault := asyncio.run(_login(url)):
                yield wrong(
                    "RabbitMQ",
                    f"as {service}: {fault}",
                    f"{RESTART} starts it, and sets the accounts' passwords as .env has them",
                )
    management = Management(deployment)
    before = now()
    response = management.get("overview")
    if response.status != 200:
        yield wrong(
            "RabbitMQ",
            f"its management API at {deployment.management_url}: {response.summary}",
            "is the management plugin enabled, and RABBITMQ_ADMIN_PASSWORD unchanged since the "
            "first start?",
        )
        return
    yield ok("RabbitMQ", f"version {response.body['rabbitmq_version']} answers")
    yield judged("RabbitMQ", of_header(response.date), before, now(), exact_to=1.0)
    yield from _alarms(management)
    yield from _accounts(management)
    yield from _exchanges(management)
    try:
        config = configured(deployment)
        policies = provision.retry_policies(deployment.alerts_config)
    except (OSError, ValueError, LookupError, AttributeError) as error:
        yield wrong(
            "queues",
            f"cannot be checked: {deployment.alerts_config} is invalid: {error!r}",
            "correct it; make check says more",
        )
        return
    yield from _policies(management, policies)
    yield from _queues(management, expected(config), policies)


async def _login(url: str) -> str:
    """Return the error, or None."""
    try:
        async with asyncio.timeout(PATIENCE):
            connection = await aio_pika.connect(url)
            await connection.close()
    except (AMQPError, OSError, TimeoutError) as error:
        return str(error) or type(error).__name__
    return ""


class Management:
    def __init__(self, deployment: Deployment) -> None:
        account = f"admin:{deployment.values['RABBITMQ_ADMIN_PASSWORD']}"
        self._headers = {"Authorization": f"Basic {base64.b64encode(account.encode()).decode()}"}
        self._url = deployment.management_url
        self._tls_dir = deployment.tls_dir

    def get(self, path: str) -> Response:
        return ask(f"{self._url}/api/{path}", self._headers, self._tls_dir)

    def list_of(self, path: str) -> list[dict[str, Any]]:
        """Return a list, which is empty if the vhost does not exist."""
        found = self.get(path).body
        return found if isinstance(found, list) else []

    def of_vhost(self, kind: str) -> list[dict[str, Any]]:
        return self.list_of(f"{kind}/{quote(VHOST, safe='')}")


def configured(deployment: Deployment) -> Config:
    """Read only the settings of alerts.toml that its queues depend on."""
    raw = tomllib.loads(deployment.alerts_config.read_text(encoding="utf-8"))
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
        *alerts.target_queues(config),
        *consent.QUEUES,
        *console.QUEUES,
        *followups.QUEUES,
    )
    return {queue.name: queue for queue in every}


def _alarms(management: Management) -> Iterator[Finding]:
    response = management.get("health/checks/alarms")
    if response.status == 503:
        alarms = (response.body or {}).get("alarms", [])
        names = sorted({str(each.get("resource")) for each in alarms})
        yield wrong(
            "RabbitMQ",
            f"out of {' and '.join(names) or 'resources'}: it accepts no messages",
            "free some (df -h, free -h); it then continues by itself, and no alert is lost",
        )


def _accounts(management: Management) -> Iterator[Finding]:
    known = {user["name"]: user for user in management.list_of("users")}
    faults = []
    if "guest" in known:
        faults.append("the account guest exists; its password is public knowledge")
    for service, rights in provision.RIGHTS.items():
        if service not in known:
            faults.append(f"the account {service} is missing")
            continue
        found = management.list_of(f"users/{service}/permissions")
        given = {each["vhost"]: each for each in found}
        wanted = rights.permissions(service)
        mine = given.pop(VHOST, {})
        if given or known[service]["tags"] or any(mine.get(k) != v for k, v in wanted.items()):
            faults.append(f"{service} has wrong permissions")
    for fault in faults:
        yield wrong("rights", fault, f"{RESTART} sets our rights; delete others in the UI")
    if not faults:
        yield ok("rights", "each RabbitMQ account has the rights it needs")


def _exchanges(management: Management) -> Iterator[Finding]:
    there = {each["name"]: each["type"] for each in management.of_vhost("exchanges")}
    for name, kind in provision.exchanges():
        if name not in there:
            yield wrong("exchanges", f"{name} does not exist", f"{RESTART} declares it")
        elif there[name] != kind:
            yield wrong("exchanges", f"{name} is of type {there[name]}, not {kind}", REDECLARE)


def _policies(management: Management, policies: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    there = {each["name"]: each for each in management.of_vhost("policies")}
    faults = [
        policy["name"]
        for policy in policies
        if any(there.get(policy["name"], {}).get(key) != value for key, value in policy.items())
    ]
    if faults:
        yield wrong(
            "policies", f"missing or not as declared: {', '.join(faults)}", f"{RESTART} sets them"
        )
    else:
        yield ok("policies", f"all {len(policies)} are as declared")


def _queues(
    management: Management, queues: Mapping[str, Queue], policies: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    there = {each["name"]: each for each in management.of_vhost("queues")}
    bound = {
        (each["source"], each["routing_key"], each["destination"])
        for each in management.of_vhost("bindings")
    }
    faults = [
        fault
        for queue in queues.values()
        for fault in _queue(queue, there.get(queue.name), bound, policies)
    ]
    yield from faults or [ok("queues", f"all {len(queues)} are as declared")]
    for name, found in there.items():
        ours = name.startswith(PREFIXES) and not name.startswith(EPOCH)
        if ours and name not in queues and not found.get("exclusive"):
            yield wrong(
                "queues",
                f"{name} belongs to no service and holds {found.get('messages', 0)} messages",
                "move them to where they belong (in the UI), then delete it",
            )


def _queue(
    queue: Queue,
    found: Mapping[str, Any] | None,
    bound: set[tuple[str, str, str]],
    policies: Sequence[Mapping[str, Any]],
) -> Iterator[Finding]:
    if found is None:
        service = queue.name.partition(".")[0]
        yield wrong(
            "queues", f"{queue.name} does not exist", f"restart {service}, which declares it"
        )
        return
    if not found["durable"] or found["arguments"] != dict(queue.arguments):
        differ = sorted(
            name
            for name in {*found["arguments"], *queue.arguments}
            if found["arguments"].get(name) != queue.arguments.get(name)
        )
        yield wrong("queues", f"{queue.name} differs in {', '.join(differ)}", REDECLARE)
    applied = found.get("effective_policy_definition") or {}
    if applied != _definition(queue.name, policies):
        by = found.get("operator_policy") or found.get("policy") or "none"
        yield wrong(
            "policies",
            f"{queue.name} has another policy than declared ({by}: {applied})",
            "delete policies that are not ours in the UI (Admin, Policies); just after a start,"
            " RabbitMQ may not have applied ours yet: check again in ten seconds",
        )
    missing = [
        f"{each.exchange.name} with {each.key}"
        for each in queue.bindings
        if (each.exchange.name, each.key, queue.name) not in bound
    ]
    if missing:
        service = queue.name.partition(".")[0]
        yield wrong(
            "queues", f"{queue.name} is not bound to {', '.join(missing)}", f"restart {service}"
        )


def _definition(name: str, policies: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    applying = [policy for policy in policies if re.search(policy["pattern"], name)]
    first = max(applying, key=lambda policy: int(policy["priority"]), default=None)
    return first["definition"] if first else {}
