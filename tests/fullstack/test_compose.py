"""What docker-compose.yml promises beside the services' own promises."""

import asyncio
import json
import time
import uuid
from typing import Any

import pytest

from deploy.up.environment import INTERNAL_KEYS, SECRETS, SECRETS_OF, SERVICES
from tests.fullstack.conftest import Running
from tests.support.compose import PUBLISHED, Compose, docker
from tests.support.eventually import eventually

pytestmark = pytest.mark.fullstack


def test_only_four_ports_are_published_and_on_this_machine_only(compose: Compose) -> None:
    running = [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]
    published = {
        (port["URL"], str(port["PublishedPort"]))
        for container in running
        if container["Service"] != "prometheus"  # of a profile, where another test has asked for it
        for port in container["Publishers"] or ()
        if port["PublishedPort"]
    }
    assert published == {("127.0.0.1", compose.values[name]) for name in PUBLISHED}


@pytest.mark.parametrize("service", [*SERVICES, "sandbox"])
def test_a_container_has_its_own_secrets_and_few_rights(compose: Compose, service: str) -> None:
    (container,) = compose.containers(service)
    described = compose.inspect(container)
    assert described["Config"]["User"] not in {"", "0", "root"}
    assert described["HostConfig"]["ReadonlyRootfs"]
    assert described["HostConfig"]["CapDrop"] == ["ALL"]
    environment = " ".join(described["Config"]["Env"])
    own = SECRETS_OF[service] | {
        f"{service.upper()}_DB_PASSWORD",
        f"{service.upper()}_AMQP_PASSWORD",
        *(["REDIS_PASSWORD"] if service == "gateway" else [INTERNAL_KEYS.get(service, "")]),
    }
    others = {name for name in SECRETS - own if compose.values.get(name)}
    assert others
    assert [name for name in others if compose.values[name] in environment] == []


def test_the_doctor_finds_nothing_wrong_in_containers(compose: Compose) -> None:
    time.sleep(10)  # RabbitMQ tells of a new queue's policy some seconds after it is there
    printed = compose("run", "--rm", "-T", "inspector", "doctor", "--json")

    findings = [json.loads(line) for line in printed.splitlines()]
    assert len(findings) > 20
    # .env is outside; a person looks at its mode.
    assert [each for each in findings if each["status"] != "ok" and each["part"] != ".env"] == []


def test_the_command_line_tool_has_its_keys_only_and_says_where_doctor_runs(
    compose: Compose,
) -> None:
    assert json.loads(compose("run", "--rm", "-T", "ostoja", "ledger", "check", "--json"))["ok"]
    printed = compose("run", "--rm", "-T", "ostoja", "doctor", "--json")
    asked = {each["part"]: each for each in map(json.loads, printed.splitlines())}
    assert "run --rm inspector doctor" in asked[".env"]["do"]
    assert asked["trail"]["status"] == "ok"


def test_a_service_runs_the_command_line_tool_too(compose: Compose) -> None:
    printed = compose("exec", "-T", "gateway", "ostoja", "ledger", "check", "--json")

    assert json.loads(printed)["ok"]


async def test_messages_can_be_moved_in_rabbitmqs_ui(system: Running) -> None:
    assert await system.rabbitmq("shovels") == []  # not 404: its plugin is there


async def test_of_three_alerts_containers_one_is_killed_and_one_drained_and_nothing_is_lost(
    compose: Compose, system: Running
) -> None:
    up = ("up", "--detach", "--wait", "--no-recreate")
    await asyncio.to_thread(compose, *up, "--scale", "alerts=3")

    def all_consume(found: list[dict[str, Any]]) -> bool:
        return ("alerts.slack", 3) in {(each["name"], each.get("consumers")) for each in found}

    await eventually(lambda: system.rabbitmq("queues"), so=all_consume)
    look_up = "import socket; print(*socket.gethostbyname_ex('alerts')[2])"  # as Prometheus does
    addresses = await asyncio.to_thread(compose, "exec", "-T", "gateway", "python", "-c", look_up)
    assert len(addresses.split()) == 3

    await system.sandbox.behave("slack", delay_seconds=0.05)  # so that some are in flight
    texts = [f"three {uuid.uuid4()}" for _ in range(60)]
    sending = asyncio.create_task(_send(system, texts))
    killed, drained, _ = compose.containers("alerts")
    await asyncio.to_thread(docker, "kill", "--signal", "KILL", killed)
    await asyncio.to_thread(docker, "stop", drained)
    assert compose.inspect(drained)["State"]["ExitCode"] == 0
    await sending

    await system.in_slack(*texts)
    await asyncio.to_thread(compose, *up, "--scale", "alerts=1")


async def _send(system: Running, texts: list[str]) -> None:
    for text in texts:
        await system.alert(text)
