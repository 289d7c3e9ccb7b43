"""docs/backup.md, word for word: data are made, everything is destroyed, restored and checked."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.up.environment import ROOT
from deploy.up.process import Process
from tests.support.checkouts import CommandError, MadeUp, made_up
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.prometheus import quick_prometheus, running_prometheus
from tests.support.runbooks import Block, sections
from tests.support.system import fresh_address
from tests.support.troubles import _past_the_triggers, patiently, steps

PAGE = sections(ROOT / "docs" / "backup.md")
PLACE = "/srv/ostoja-backup"
SERVERS = ("rabbitmq", "postgres", "redis")
PATIENCE = 300.0
"""Longer than anything takes on a busy machine."""

_ACTION = "UPDATE consent.consent_audit_log SET action = '{}' WHERE id = 1"
# What a good backup does not have: a changed row of the trail, a ledger that does not add up.
HARM = [
    (_past_the_triggers(_ACTION.format("export")), _past_the_triggers(_ACTION.format("opt-in"))),
    (
        "UPDATE alerts.ledger_total SET accepted = accepted + 1",
        "UPDATE alerts.ledger_total SET accepted = accepted - 1",
    ),
]

pytestmark = [
    pytest.mark.skipif(
        shutil.which("pgbackrest") is None, reason="pgbackrest is not installed (make prepare)"
    ),
    pytest.mark.promise("P4", "P5"),
]


@pytest.fixture
def checkout(private_folder: Path, ports: Ports) -> Iterator[MadeUp]:
    folder = private_folder / f"backup-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    with made_up(folder, ports) as made:
        _own_command(folder)
        yield made


def _own_command(folder: Path) -> None:
    """Give it the `ostoja` of this checkout, whichever one its .venv is a link to."""
    shared = (folder / ".venv").resolve()
    (folder / ".venv").unlink()
    (folder / ".venv" / "bin").mkdir(parents=True)
    for each in shared.iterdir():
        if each.name != "bin":
            (folder / ".venv" / each.name).symlink_to(each)
    for each in (shared / "bin").iterdir():
        target = ROOT / "deploy" / "ostoja.sh" if each.name == "ostoja" else each
        (folder / ".venv" / "bin" / each.name).symlink_to(target)


def page(section: str, place: Path) -> list[Block]:
    """Return a section's commands, with a folder of the test's own for the one that it names."""
    return [
        Block(
            each.page, each.line, each.way, each.commands.replace(PLACE, str(place)), each.expected
        )
        for each in PAGE[section]
    ]


async def destroy(checkout: MadeUp) -> None:
    """Lose the machine: kill everything, and delete all but .env."""
    local = checkout.folder / ".local"
    names = ("supervisor", "gateway", "consent", "followups", "alerts", "sandbox")
    records = [local / "run" / f"{name}.pid" for name in names]
    records += [local / name / "server.pid" for name in SERVERS]
    for path in records:
        await asyncio.to_thread(Process(path).stop, signal.SIGKILL, 30)
    await asyncio.to_thread(subprocess.run, ["make", "down"], cwd=checkout.folder, check=True)
    shutil.rmtree(local)


async def test_everything_is_destroyed_and_comes_back(
    checkout: MadeUp, ports: Ports, tmp_path: Path
) -> None:
    place = checkout.folder.with_name(f"{checkout.folder.name}-elsewhere")
    withdrawn, erased, chatted = (fresh_address() for _ in range(3))
    for email in (withdrawn, erased):
        await checkout.opt_in(email)
    first = await checkout.alert("of before the backup")
    await checkout.run(page("Set it up", place))

    with pytest.raises(CommandError, match="it runs here"):
        await checkout.run(page("Restore", place))

    after = await checkout.alert("of after the backup")
    body = {"message": f"Mój adres to {chatted}", "session_id": chatted}
    assert (await checkout.http("POST", "/api/chatbot/chat", body)).status == 200
    await delivered(checkout, after)
    await archived(checkout)
    # From here on, for a minute, the log of the database is lost with its disk.
    answer = await checkout.http("POST", "/api/unsubscribe", {"email": withdrawn})
    assert answer.status == 200, answer
    for email in (erased, chatted):
        answer = await checkout.http("POST", "/api/consent/erase", {"email": email}, key="admin")
        assert answer.status == 200, answer
    await destroy(checkout)

    done = await checkout.shell("make up")
    assert done[0] != 0
    assert "ostoja restore" in done[2]
    await killed(checkout, "ostoja restore --yes", "postgres/data")
    with pytest.raises(CommandError, match=r"it runs here|overwrites nothing"):
        await checkout.run(page("Restore", place))
    assert (await checkout.shell("make down && rm -r .local/postgres"))[0] == 0
    await checkout.run(page("Restore", place))

    log = (checkout.folder / ".local" / "log" / "consent.log").read_text(encoding="utf-8")
    assert "journal.applied" in log
    answer = await checkout.http("GET", "/api/ledger/check", key="admin")
    assert answer.body["accepted"] >= 2
    for alert in (first, after):
        await delivered(checkout, alert)
    assert (await checkout.consents(withdrawn))["unsubscribed"] is True
    for email in (erased, chatted):
        audit = await checkout.audit(email)
        assert audit["entries"] == []
        assert audit["erasure"]["status"] in {"in_progress", "done"}
    assert (await checkout.http("GET", "/api/consent/audit/verify", key="admin")).body["ok"]
    lost = (checkout.folder / ".local" / "consent").glob("checkpoints-lost-*.jsonl")
    for path in lost:
        assert all(json.loads(line)["rows"] for line in path.read_text().splitlines())
    # The next backup continues where the lost server stopped.
    await killed(checkout, "ostoja verify-backup", "verify/data")
    status_, output, complaints = await checkout.shell(
        "PATH=$PWD/.venv/bin:$PATH; ostoja backup; ostoja verify-backup"
    )
    assert status_ == 0, output + complaints
    assert "ok: backup" in output
    await no_harm_is_missed(checkout)
    written = checkout.folder / ".local" / "consent" / "verifications.jsonl"
    (verified,) = written.read_text().splitlines()  # those of before are lost with the disk
    old = datetime.now(UTC) - timedelta(hours=37)
    written.write_text(json.dumps({**json.loads(verified), "at": old.isoformat()}) + "\n")
    await drill(checkout, ports, tmp_path)


async def no_harm_is_missed(checkout: MadeUp) -> None:
    for harm, mend in HARM:
        await asyncio.to_thread(checkout.query, harm)
        status, _, complaints = await checkout.shell(
            "PATH=$PWD/.venv/bin:$PATH; ostoja backup; ostoja verify-backup"
        )
        assert status == 1, harm
        assert "not whole" in complaints
        await asyncio.to_thread(checkout.query, mend)


async def drill(checkout: MadeUp, ports: Ports, folder: Path) -> None:
    """The rule tells of it, and its page ends it; consent, started anew, looks at once."""
    page_ = "backup-not-verified"
    look, act, verify = steps(page_)
    target = f"{HOST}:{checkout.values['CONSENT_METRICS_PORT']}"
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(quick_prometheus(folder) / "rules.yml")],
        "scrape_configs": [{"job_name": "consent", "static_configs": [{"targets": [target]}]}],
    }
    with running_prometheus(folder, configuration, ports.take()) as prometheus:
        await prometheus.ready()

        async def over() -> bool:
            return page_ not in await prometheus.firing()

        assert await over()
        await checkout.restart("consent")
        await eventually(prometheus.firing, PATIENCE, every=0.3, so=lambda found: page_ in found)
        await checkout.run(look)
        await checkout.run(act)
        await checkout.restart("consent")
        await patiently(checkout, verify, PATIENCE)
        await eventually(over, PATIENCE, every=0.3)


async def killed(checkout: MadeUp, command: str, path: str) -> None:
    """Kill a command and all it started (kill -9) as soon as this path in .local exists."""
    process = await asyncio.create_subprocess_shell(
        f"PATH=$PWD/.venv/bin:$PATH exec {command}",
        cwd=checkout.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    async def there() -> bool:
        return (checkout.folder / ".local" / path).exists()

    try:
        await eventually(there, PATIENCE, every=0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def archived(checkout: MadeUp) -> None:
    """Wait until the log of what has happened so far is in the repository."""
    # The newest archived file does not say so by its time: it may be the backup's own.
    ended = "SELECT pg_walfile_name(pg_switch_wal() - 1)"
    ((last,),) = await asyncio.to_thread(checkout.query, ended)
    there = f"SELECT left(last_archived_wal, 24) >= '{last}' FROM pg_stat_archiver"

    async def so() -> bool:
        ((answer,),) = await asyncio.to_thread(checkout.query, there)
        return bool(answer)

    await eventually(so, PATIENCE)


async def delivered(checkout: MadeUp, alert: str) -> None:
    async def so() -> bool:
        statement = f"SELECT state FROM alerts.delivery WHERE alert_id = '{alert}'"
        states = await asyncio.to_thread(checkout.query, statement)
        return bool(states) and all(state == "delivered" for (state,) in states)

    await eventually(so, PATIENCE, every=0.5)
