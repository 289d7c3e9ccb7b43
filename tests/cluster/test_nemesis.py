"""The whole system on three hosts, broken as seeds say, against all promises.

`make test-cluster SEED=7` does one seed again; LONG=1 takes new seeds for a night.
"""

import asyncio
import json
import os
import random
import re
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.up.process import wait_until
from tests.cluster.apart import changed
from tests.cluster.checker import violations
from tests.cluster.fleet import Fleet, running_fleet
from tests.cluster.gathering import BALANCED_SECONDS, gather
from tests.cluster.generator import Generator
from tests.cluster.history import History
from tests.cluster.nemesis import Fault, Nemesis, clocks, during, everything, killed
from tests.cluster.network import both_ways
from tests.support.ports import Ports

pytestmark = [
    pytest.mark.promise("P10"),
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]
LONG = bool(os.environ.get("LONG"))
SEEDS = [int(os.environ["SEED"])] if os.environ.get("SEED") else [1, 2, 3]
if LONG and not os.environ.get("SEED"):
    SEEDS = [random.SystemRandom().randrange(10**6) for _ in range(100)]
SECONDS = 300.0 if LONG else 60.0
CONTROL_SECONDS = 30.0  # what is lost does not come back
UNSAVED = 'synchronous_commit: "off"\n        wal_writer_delay: 10s'
HISTORY = "history.jsonl"


@pytest.fixture
def folder(private_folder: Path, request: pytest.FixtureRequest) -> Path:
    private_folder.chmod(0o711)  # PostgreSQL's user must reach its data
    made = private_folder / re.sub(r"\W+", "-", request.node.name).strip("-")
    made.mkdir()
    made.chmod(0o711)
    return made


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_promise_holds_whatever_breaks(folder: Path, ports: Ports, seed: int) -> None:
    with (
        running_fleet(folder, ports, clocks=clocks(seed)) as fleet,
        closing(History(folder / HISTORY)) as history,
    ):
        async with Generator(fleet, fleet.urls, fleet.network.callers, history, seed):
            await Nemesis(fleet, history, seed, long=LONG).run(SECONDS)
        wrong = violations(history.events, await gather(fleet, history))
        report(fleet, history, wrong)
        assert not wrong, f"seed {seed}\n" + "\n".join(wrong) + f"\n{history.timeline()}"


async def broken(
    fleet: Fleet, faults: Mapping[str, Fault], seconds: float = BALANCED_SECONDS
) -> list[str]:
    """Return what the checker says of these faults, each of another host, at the same time.

    :param seconds: after the last caller has ended, until all must be balanced
    """
    with closing(History(fleet.folder / HISTORY)) as history:
        async with Generator(fleet, fleet.urls, fleet.network.callers, history, seed=0):
            nemesis = Nemesis(fleet, history, seed=0)
            await asyncio.sleep(5)
            async with asyncio.TaskGroup() as together:
                for host, fault in faults.items():
                    together.create_task(nemesis.do(fault, host))
            await nemesis.heal()
        wrong = violations(history.events, await gather(fleet, history, seconds))
        report(fleet, history, wrong)
    return wrong


def report(fleet: Fleet, history: History, wrong: list[str]) -> None:
    """Leave what happened beside the logs, for whoever wants to know of a run that passed, too."""
    lines = [
        history.summary(),
        history.silence(),
        history.timeline(),
        *(wrong or ["nothing is wrong"]),
    ]
    (fleet.folder / "result.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.skipif(LONG, reason="the seeds are for the night")
@pytest.mark.parametrize("what", ["slow network", "full disk"])
async def test_a_host_in_want_loses_nothing(folder: Path, ports: Ports, what: str) -> None:
    with running_fleet(folder, ports) as fleet:
        primary_on(fleet, "a")
        want = fleet.network.slow if what == "slow network" else fleet.full_disk
        wrong = await broken(fleet, {"a": Fault(what, 40, during(want("a")))})
        assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(LONG, reason="the seeds are for the night")
async def test_clocks_five_seconds_apart_lose_nothing(folder: Path, ports: Ports) -> None:
    with running_fleet(folder, ports, clocks={"a": 5, "b": -5}) as fleet:
        primary_on(fleet, "a")
        (row,) = fleet.query("SELECT clock_timestamp() AS now")
        assert (row.now - datetime.now(UTC)).total_seconds() > 4
        wrong = await broken(fleet, {"a": Fault("kill", 20, killed(fleet, "a", everything("a")))})
        assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(LONG, reason="the seeds are for the night")
@pytest.mark.parametrize("hosts", ["bc", "abc"])
async def test_what_lost_hosts_had_accepted_returns_with_them(
    folder: Path, ports: Ports, hosts: str
) -> None:
    with running_fleet(folder, ports) as fleet:
        wrong = await kill(fleet, hosts)
        assert not wrong, "\n".join(wrong)
        if hosts == "bc":  # the gateway of a is left, and does not know what became of an alert
            lines = (fleet.folder / HISTORY).read_text(encoding="utf-8").splitlines()
            assert any(503 in json.loads(line)["details"].get("told", []) for line in lines)


async def kill(fleet: Fleet, hosts: str, seconds: float = BALANCED_SECONDS) -> list[str]:
    faults = {host: Fault("kill", 20, killed(fleet, host, everything(host))) for host in hosts}
    return await broken(fleet, faults, seconds)


# The controls: without what keeps a promise, the same checker must find it broken.


@pytest.mark.control("P10")
@pytest.mark.skipif(LONG, reason="the seeds are for the night")
async def test_without_quorum_commit_the_checker_finds_a_loss(folder: Path, ports: Ports) -> None:
    change = ("synchronous_mode: quorum", "synchronous_mode: off")
    files = changed(folder / "files", "patroni.yml", change)
    with running_fleet(folder, ports, files=files) as fleet:
        wrong = await cut_off_primary(fleet, CONTROL_SECONDS)
        lost = [line for line in wrong if "not in the" in line]  # ledger, or trail
        assert lost, wrong


@pytest.mark.control("P10")
@pytest.mark.skipif(LONG, reason="the seeds are for the night")
async def test_without_commits_on_disk_the_checker_finds_a_loss(folder: Path, ports: Ports) -> None:
    change = ('synchronous_commit: "on"', UNSAVED)
    files = changed(folder / "files", "patroni.yml", change)
    with running_fleet(folder, ports, files=files) as fleet:
        wrong = await kill(fleet, "abc", CONTROL_SECONDS)
        assert [line for line in wrong if "not in the" in line], wrong


@pytest.mark.skipif(LONG, reason="the seeds are for the night")
async def test_with_quorum_commit_the_same_loses_nothing(folder: Path, ports: Ports) -> None:
    with running_fleet(folder, ports) as fleet:
        wrong = await cut_off_primary(fleet)
        assert not wrong, "\n".join(wrong)


async def cut_off_primary(fleet: Fleet, seconds: float = BALANCED_SECONDS) -> list[str]:
    primary_on(fleet, "a")
    fault = Fault("cut off", 40, during(fleet.network.cut(both_ways("a"))))
    return await broken(fleet, {"a": fault}, seconds)


def primary_on(fleet: Fleet, host: str) -> None:
    if fleet.cluster.primary != host:
        fleet.cluster.switch_over(host)
    wait_until("the primary", 60, lambda: fleet.cluster.primary == host, lambda: True)
