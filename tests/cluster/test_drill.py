"""The drill on three hosts: each trouble is found by its rule and ended by the page it names."""

import asyncio
import json
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from deploy.up.environment import BEHIND, SERVICES
from deploy.up.servers import manage
from deploy.up.supervisor import HOSTS
from tests.support.checkouts import MadeUp, ThreeHosts, made_up
from tests.support.eventually import eventually
from tests.support.ports import Ports
from tests.support.prometheus import Prometheus, quick_prometheus, running_prometheus
from tests.support.troubles import FIRST, OF_THREE_HOSTS, Trouble, passes, patiently, steps

pytestmark = [pytest.mark.cluster, pytest.mark.promise("P10")]
BACK_SECONDS = 120.0
A_LOT = 100  # MB of log


@pytest.fixture(scope="module")
def hosts(private_folder: Path, ports: Ports) -> Iterator[MadeUp]:
    folder = private_folder / f"drill-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    for each in (private_folder, folder):
        each.chmod(0o711)  # PostgreSQL's user must reach its data
    with made_up(folder, ports, ThreeHosts) as made:
        yield made


@pytest.fixture
async def prometheus(hosts: MadeUp, ports: Ports, tmp_path: Path) -> AsyncIterator[Prometheus]:
    """Scrape as the Prometheus of a host does, but for the services, which have other rules."""
    made = quick_prometheus(tmp_path)
    ours = yaml.safe_load((made / "three-hosts.yml").read_text("utf-8"))
    ours["rule_files"] = [str(made / "rules.yml")]
    (patroni,) = ours.pop("scrape_config_files")
    ours["scrape_configs"] += yaml.safe_load((made / patroni).read_text("utf-8"))["scrape_configs"]
    jobs = [job for job in ours["scrape_configs"] if job["job_name"] not in SERVICES]
    assert [job["job_name"] for job in jobs] == ["rabbitmq", "queues", "patroni"]
    for job in jobs:
        kind = "PATRONI" if job["job_name"] == "patroni" else "RABBITMQ_METRICS"
        port = hosts.values[f"{kind}_PORT"]
        targets = [f"{address}:{port}" for address in HOSTS.values()]
        job["static_configs"] = [{"targets": targets}]
    ours["scrape_configs"] = jobs
    with running_prometheus(tmp_path, ours, ports.take()) as running:
        await running.ready()
        yield running


def members(hosts: MadeUp) -> dict[str, str]:
    """Return the role of each host's PostgreSQL."""
    for address in HOSTS.values():
        url = f"http://{address}:{hosts.values['PATRONI_PORT']}/cluster"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return {one["name"]: one["role"] for one in json.load(answer)["members"]}
        except OSError:
            continue
    return {}


def standbys(hosts: MadeUp) -> list[str]:
    return [name for name, role in members(hosts).items() if role != "leader"]


def ask(hosts: MadeUp, statement: str, host: str | None = None) -> None:
    """Ask one host's PostgreSQL, or the primary."""
    behind = BEHIND if host else 0
    with closing(
        psycopg2.connect(
            host=HOSTS[host or "a"],
            port=int(hosts.values["POSTGRES_PORT"]) + behind,
            user="postgres",
            password=hosts.values["POSTGRES_SUPERUSER_PASSWORD"],
            dbname="postgres",
        )
    ) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


async def a_node_stops(hosts: Any) -> None:
    await hosts.stop("rabbitmq-c")


async def a_node_has_no_members(hosts: Any) -> None:
    await asyncio.to_thread(shrink, hosts)


def shrink(hosts: MadeUp) -> None:
    url = f"http://127.0.0.1:{hosts.values['RABBITMQ_UI_PORT']}"
    account = ("admin", hosts.values["RABBITMQ_ADMIN_PASSWORD"])
    path = f"queues/quorum/replicas/on/rabbit-c@{HOSTS['c']}/shrink"
    manage(url, account, "DELETE", path, seconds=60)


async def both_standbys_stop(hosts: Any) -> None:
    both = await asyncio.to_thread(standbys, hosts)
    assert len(both) == 2
    for name in both:
        await hosts.stop(f"postgres-{name}")


async def a_standby_replays_nothing(hosts: Any) -> None:
    one, _ = await asyncio.to_thread(standbys, hosts)
    await asyncio.to_thread(ask, hosts, "SELECT pg_wal_replay_pause()", one)
    written = "pg_logical_emit_message(false, 'drill', repeat('x', 1000000))"
    await asyncio.to_thread(ask, hosts, f"SELECT {written} FROM generate_series(1, {A_LOT})")


TROUBLES = {
    "node-lost": Trouble(a_node_stops),
    "quorum-critical": Trouble(a_node_has_no_members),
    "no-standby": Trouble(both_standbys_stop),
    "replica-lag": Trouble(a_standby_replays_nothing),
}


@pytest.mark.parametrize("page", OF_THREE_HOSTS)
async def test_a_trouble_of_three_hosts_is_told_by_its_rule_and_ended_by_its_page(
    hosts: MadeUp, prometheus: Prometheus, page: str
) -> None:
    trouble, (look, act, verify) = TROUBLES[page], steps(page)

    async def silent() -> bool:
        return not await prometheus.firing() & {*OF_THREE_HOSTS}

    async def told() -> bool:
        return page in await prometheus.firing()

    await eventually(silent, BACK_SECONDS, every=0.3)
    await hosts.run(FIRST)
    assert not await passes(hosts, look), "its symptom is seen without the trouble"
    await trouble.begins(hosts)
    await eventually(told, BACK_SECONDS, every=0.3)
    await patiently(hosts, look, BACK_SECONDS)
    assert not await passes(hosts, verify), "it says that the trouble is over, amid it"
    await hosts.run(act)
    await patiently(hosts, verify, BACK_SECONDS)
    await eventually(silent, BACK_SECONDS, every=0.3)
