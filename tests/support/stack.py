"""The whole system as it runs in production: the services and the sandbox as processes."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from deploy.up import environment
from deploy.up.environment import EXAMPLE_CONFIG, SERVICES, WITH_TABLES
from deploy.up.process import Process, ServerError, wait_until
from deploy.up.servers import Postgres, RabbitMQ, Redis
from deploy.up.supervisor import DRAIN_SECONDS
from libs.common.process import certificates
from tests.support import warm
from tests.support.brokers import Vhost
from tests.support.databases import Databases, DatabaseUrl, rows
from tests.support.ports import HOST, Ports
from tests.support.sandbox import Sandbox, running_sandbox
from tests.support.servers import kill_with_children
from tests.support.shipped import new_env, whole
from tests.support.system import System
from tests.support.toml import write_toml

ROOT = environment.ROOT
HEALTH = {"gateway": "/api/health"}
HTTP_TARGETS = ("slack", "monday", "sms", "webhook")  # of the shipped alerts.toml
# An attempt ends, and the next one comes, while a test still looks. The first delay must not be
# shorter than a target's lease (all its time-outs and its margin).
QUICK_TARGET = {
    "timeout": 1.5,
    "margin": 0.5,
    "retry_delays": [2, 2, 2, 2, 2],
    "breaker": {"fail_max": 5, "reset_timeout": 2},
}
QUICK_MAIL = QUICK_TARGET | {"ask_timeout": 1, "retry_delays": [3, 3, 3, 3, 3]}
# So long that something can be done to a mail under way, from another process.
PATIENT_MAIL = QUICK_MAIL | {"timeout": 6, "retry_delays": [9, 9, 9, 9, 9]}
# What a test would else wait for, where it does not wait for that very thing.
PATIENCE = {"EXPORT_SECONDS": "3", "ERASURE_RESEND_SECONDS": "2", "PERMIT_SECONDS": "15"}
# Limits have tests of their own; here they would only count the test's calls.
UNLIMITED = {
    "CHAT_RATE_LIMIT": "1000000 per minute",
    "API_RATE_LIMIT_MINUTE": "1000000 per minute",
    "API_RATE_LIMIT_HOUR": "1000000 per hour",
    "CHAT_BUDGET": "1000000 per hour",
    "PUBLIC_WRITE_BUDGET": "1000000 per hour",
    "PUBLIC_WITHDRAWAL_BUDGET": "1000000 per hour",
}
QUICK = {
    **UNLIMITED,
    "SERVICE_RATE_LIMIT": "1000000 per minute",
    "FOLLOWUP_QUIET_HOURS": "off",
    # A mail more for each person; test_double_opt_in has it on.
    "DOUBLE_OPT_IN": "off",
    "ALERTS_RECONCILE_SECONDS": "1",
    "ALERTS_OVERDUE_SECONDS": "5",
}


@dataclass(frozen=True)
class Second:
    """One more process of a service."""

    process: Process
    port: int
    log: Path


class Stack(System):
    """One service may be killed and started by its name while the others go on."""

    sandbox: Sandbox

    def __init__(
        self,
        folder: Path,
        values: Mapping[str, str],
        database: DatabaseUrl,
        vhost: Vhost,
        sandbox: Sandbox,
        servers: tuple[Postgres, RabbitMQ, Redis],
        ports: Ports,
    ) -> None:
        super().__init__(f"http://{HOST}:{values['GATEWAY_PORT']}", values, sandbox)
        self.ports = ports
        self.folder = folder
        self.database = database
        self.vhost = vhost
        self.postgres, self.rabbitmq, self.redis = servers
        self._servers = {server.name: server for server in servers}
        self.changes: dict[str, dict[str, str]] = {name: {} for name in SERVICES}
        """Variables of one service alone, from its next start on."""
        self._processes = {name: Process(folder / "run" / f"{name}.pid") for name in SERVICES}

    async def start(self, name: str) -> None:
        """Start a service and wait until it answers."""
        await asyncio.to_thread(self.start_now, name)

    async def stop(self, name: str) -> None:
        """Let a service finish its work in flight (SIGTERM)."""
        await asyncio.to_thread(self.stop_now, name)

    def pid(self, name: str) -> int:
        pid = self._processes[name].pid
        assert pid is not None, f"{name} does not run"
        return pid

    async def kill9(self, name: str) -> None:
        await asyncio.to_thread(self._processes[name].stop, signal.SIGKILL, DRAIN_SECONDS)

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """Kill a service, or a server with all its processes; start it again."""
        server = self._servers.get(name)
        if server is None:
            await self.kill9(name)
        else:
            await asyncio.to_thread(kill_with_children, server)
        try:
            yield
        finally:
            await (self.start(name) if server is None else asyncio.to_thread(server.start))

    @contextmanager
    def second(self, name: str, **settings: str) -> Iterator[Second]:
        """Start another process of a service, and do not wait for it."""
        port = self.ports.take()
        at = f"{name}-{port}"
        one = Second(Process(self.folder / "run" / f"{at}.pid"), port, self._log_path(at))
        own = {"HTTP_PORT": str(port), "METRICS_PORT": str(self.ports.take())}
        env = {**os.environ, **self._environment(name), **own, **settings}
        warm.spawn(one.process, name, env=env, log=one.log)
        try:
            yield one
        finally:
            one.process.stop(signal.SIGTERM, DRAIN_SECONDS)

    def log(self, name: str) -> str:
        path = self._log_path(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Ask, or change, the database past every service; rows have names."""
        return rows(self.database.superuser_url, statement, values)

    def launch(self, name: str) -> None:
        inherited = {key: value for key, value in os.environ.items() if key not in self.values}
        environment = {**inherited, **self._environment(name)}
        warm.spawn(self._processes[name], name, env=environment, log=self._log_path(name))

    def start_now(self, name: str) -> None:
        self.launch(name)
        self.wait_now(name)

    def wait_now(self, name: str, seconds: float = 30) -> None:
        port = int(self.values[f"{name.upper()}_PORT"])
        tls_dir = environment.tls_dir(self.values, name) if name in WITH_TABLES else None
        try:
            wait_until(
                name,
                seconds,
                lambda: status(port, HEALTH.get(name, "/health"), tls_dir) == 200,
                lambda: self._processes[name].pid is not None,
            )
        except ServerError as error:
            raise RuntimeError(f"{error}:\n{self.log(name)[-4000:]}") from None

    def restart_now(self, name: str) -> None:
        self.stop_now(name)
        self.start_now(name)

    def stop_now(self, name: str) -> None:
        self._processes[name].stop(signal.SIGTERM, DRAIN_SECONDS)

    def close(self) -> None:
        for process in self._processes.values():
            process.signal(signal.SIGTERM)
        for name in self._processes:
            self.stop_now(name)

    def _log_path(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"

    def _environment(self, name: str) -> dict[str, str]:
        settings = environment.for_process(self.values, name)
        settings["AMQP_URL"] = self.vhost.url(name)
        if name in WITH_TABLES:
            settings["DATABASE_URL"] = self.database.of(name)
        return settings | self.changes[name]


@contextmanager
def running_stack(
    folder: Path,
    ports: Ports,
    databases: Databases,
    servers: tuple[Postgres, RabbitMQ, Redis],
    settings: Mapping[str, str],
    *,
    vhost_name: str | None = None,
    kind: type[Stack] = Stack,
) -> Iterator[Stack]:
    """Run the system on a fresh database and vhost; `settings` are as in .env.

    :param vhost_name: if not a random one
    """
    _, rabbitmq, redis = servers
    database = databases.create(*WITH_TABLES)
    vhost = Vhost(rabbitmq, vhost_name)
    try:
        with running_sandbox(ports) as sandbox:
            values = new_env()
            values |= {
                f"{name.upper()}{kind}_PORT": str(ports.take())
                for name in SERVICES
                for kind in ("", "_METRICS")
            }
            values |= QUICK | {
                "GATEWAY_HTTPS_PORT": str(ports.take()),
                "SANDBOX_PORT": str(sandbox.port),
                "SANDBOX_SMTP_PORT": str(sandbox.smtp_port),
                "WEBHOOK_SECRET": sandbox.webhook_secret,
                "RABBITMQ_METRICS_PORT": str(rabbitmq.ports["RABBITMQ_METRICS_PORT"]),
                "REDIS_PORT": str(redis.port),
                "REDIS_PASSWORD": redis.password,
                "ALERTS_CONFIG": str(quick_alerts_config(folder)),
                "COMPANY_CONFIG": str(EXAMPLE_CONFIG / "company.toml"),
                "FOLLOWUPS_CONFIG": str(EXAMPLE_CONFIG / "followups.toml"),
                "FORMS_CONFIG": str(quick_forms_config(folder)),
                "RATE_LIMIT_STATE_FILE": str(folder / "ratelimits.json"),
                "KEYS_STATE_FILE": str(folder / "keys.json"),
                "CONSENT_RECORDS_DIR": str(folder / "consent"),
            }
            stack = kind(folder, values | dict(settings), database, vhost, sandbox, servers, ports)
            try:
                for name in SERVICES:
                    stack.launch(name)
                for name in SERVICES:
                    stack.wait_now(name)
                # Else the first kill may come before any queue, and nobody could take an alert; or
                # alerts taken before the ledger's first epoch are requeued as it begins.
                wait_until("alerts.intake", 30, lambda: _takes_alerts(vhost), lambda: True)
                wait_until("alerts.epoch", 30, lambda: _is_marked(vhost), lambda: True)
                yield stack
            finally:
                stack.close()
    finally:
        vhost.delete()
        databases.drop(database.name)


def _takes_alerts(vhost: Vhost) -> bool:
    bindings = vhost.call("GET", "bindings")
    return ("alerts", "alerts.intake") in {(one["source"], one["destination"]) for one in bindings}


def _is_marked(vhost: Vhost) -> bool:
    return any(queue["name"].startswith("alerts.epoch.") for queue in vhost.call("GET", "queues"))


def quick_alerts_config(
    folder: Path, mail: Mapping[str, Any] = QUICK_MAIL, **sections: Mapping[str, Any]
) -> Path:
    """Write the shipped alerts.toml with short times, these sections replaced."""
    changes = {**dict.fromkeys(HTTP_TARGETS, QUICK_TARGET), "email": mail}
    return write_alerts_config(folder, changes, **sections)


def quick_forms_config(folder: Path) -> Path:
    """Write the shipped forms.toml without its limits, which have tests of their own.

    Who sends the form `timed` needs as long as a person.
    """
    config = whole("forms")
    timed = config["forms"]["contact"]
    timed |= {"limits": dict.fromkeys(("address", "form"), "1000000 per hour")}
    config["forms"] = {"contact": timed | {"minimum_seconds": 0}, "timed": timed}
    path = folder / "forms.toml"
    write_toml(path, config)
    return path


def write_alerts_config(
    folder: Path, changes: Mapping[str, Mapping[str, Any]], **sections: Mapping[str, Any]
) -> Path:
    """Write the shipped alerts.toml: these targets changed, these sections replaced.

    :param changes: options of targets; None removes one
    """
    config = whole("alerts") | sections
    for name, change in changes.items():
        options = config["targets"][name] | change
        config["targets"][name] = {k: v for k, v in options.items() if v is not None}
    path = folder / "alerts.toml"
    write_toml(path, config)
    shutil.copy(EXAMPLE_CONFIG / "rota-sales.ics", folder)
    return path


def status(port: int, path: str, tls_dir: Path | None = None, host: str = HOST) -> int | None:
    if tls_dir:
        tls = certificates.client(tls_dir)
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=5, context=tls)
    else:
        connection = HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
