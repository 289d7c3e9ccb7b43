"""A real Prometheus with our configuration on a running system: targets, rules, every panel."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.up.environment import SERVICES
from tests.support.eventually import eventually
from tests.support.forms import submit
from tests.support.ports import HOST, Ports
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.promql import PATRONI, PROMETHEUS, selectors
from tests.support.stack import Stack
from tests.support.system import LEAD, fresh_address
from tests.unit.deploy.test_grafana import expressions

# Series that come with an event which is not made to happen here, or with a setting.
UNSEEN = {
    "alerts_case_answer_seconds_bucket",
    "alerts_oncall_gap_seconds",
    "alerts_digests_total",
    "alerts_requeued_total",
    "consent_erasure_days_left",
    "broker_consumed_total",
    "followups_mails_total",
    "gateway_upstream_failures_total",
    "gateway_worker_memory_bytes",
    "tls_certificate_end_time_seconds",
    *PATRONI,
}


def configuration(stack: Stack) -> dict[str, Any]:
    """Return ours, with the ports of this system in the place of the containers' names."""
    ours: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    ours["global"] = {"scrape_interval": "2s", "evaluation_interval": "1s"}
    ours["rule_files"] = [str(PROMETHEUS / name) for name in ours["rule_files"]]
    for job in ours["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        name = f"{job['job_name'].upper()}_METRICS_PORT"
        rabbitmq = "rabbitmq" in str(job)
        port = stack.rabbitmq.ports["RABBITMQ_METRICS_PORT"] if rabbitmq else stack.values.get(name)
        job["static_configs"] = [{"targets": [f"{HOST}:{port}"]}]
        if "params" in job:
            job["params"]["vhost"] = [stack.vhost.name]
    return ours


@pytest.fixture
async def prometheus(stack: Stack, ports: Ports, tmp_path: Path) -> AsyncIterator[Prometheus]:
    with running_prometheus(tmp_path, configuration(stack), ports.take()) as running:
        await running.ready()
        yield running


async def a_day_at_work(stack: Stack) -> None:
    address = fresh_address()
    await stack.http("POST", "/api/chatbot/chat", LEAD | {"session_id": address, "email": address})
    await submit(stack, {"email": fresh_address()}, consents={"marketing": "0" * 64})
    await stack.opt_in(address)
    await stack.follow_up(address)
    for _ in range(2):  # the second is answered from the cache
        await stack.alert("all is well", key="all-is-well")
    await eventually(lambda: stack.sandbox.mails(address), 30)
    answer = await stack.http("POST", "/api/unsubscribe", {"email": address})
    assert answer.status == 200, answer


async def test_it_sees_every_process_takes_every_rule_and_shows_every_panel(
    stack: Stack, prometheus: Prometheus
) -> None:
    await a_day_at_work(stack)

    async def seen() -> bool:
        targets = (await prometheus.ask("targets"))["activeTargets"]
        return {target["health"] for target in targets} == {"up"}

    await eventually(seen, 60, every=0.2)
    jobs = {
        target["labels"]["job"] for target in (await prometheus.ask("targets"))["activeTargets"]
    }
    assert jobs == {*SERVICES, "rabbitmq", "queues"}

    wanted = [
        asked
        for asked in expressions()
        if not UNSEEN & {selector.metric for selector in selectors(asked)}
    ]
    assert len(wanted) > 40

    async def empty() -> list[str]:
        found = []
        for asked in wanted:
            query = asked.replace("$__rate_interval", "20s").replace("$__range", "1h")
            if not (await prometheus.ask("query", query=query))["result"]:
                found.append(asked)
        return found

    try:
        await eventually(empty, 60, every=0.5, so=lambda found: not found)
    except TimeoutError:
        pytest.fail(f"show nothing: {await empty()}")
    # Labels are of closed sets: no id, no address, nothing that a client made up.
    every = await prometheus.ask("series", **{"match[]": f'{{job=~"{"|".join(SERVICES)}"}}'})
    labels = {each for one in every for label, each in one.items() if label != "instance"}
    assert [each for each in labels if re.search(r"@|[0-9a-f]{8}-[0-9a-f]{4}|[0-9]{6}", each)] == []

    (group,) = (await prometheus.ask("rules"))["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert [rule["name"] for rule in group["rules"] if rule["state"] == "firing"] == []
