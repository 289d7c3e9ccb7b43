"""What a restore puts together, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.backup import records
from deploy.backup.deployment import FULL_SECONDS, Deployment, full_is_due
from deploy.up import environment
from deploy.up.process import ServerError
from tests.support.ports import Ports


def line(row: int, subject: str = "") -> dict[str, Any]:
    return {"row": row, "hash": f"{row:064}", "subject": subject or None}


def host(folder: Path, name: str, *lines: dict[str, Any], cut: str = "") -> Path:
    text = "".join(json.dumps(each) + "\n" for each in lines) + cut
    (folder / name).mkdir(parents=True)
    (folder / name / records.WITHDRAWALS).write_text(text)
    return folder / name


@pytest.fixture
def deployment(tmp_path: Path, ports: Ports) -> Deployment:
    values = environment.defaults()
    values |= {
        "BACKUP_DIR": "elsewhere",
        "BACKUP_KEY": "not to be seen",
        "GATEWAY_PORT": str(ports.take()),
    }
    return Deployment(tmp_path, values)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_the_newest_position_of_all_hosts_comes_last(tmp_path: Path, order: str) -> None:
    host(tmp_path, "a", line(3, "x"), line(9, "y"))
    host(tmp_path, "b", line(3, "x"), line(7, "z"), cut='{"row": 99, "ha')
    joined = records.join(tmp_path / name for name in order)
    assert joined.withdrawals[-1] == line(9, "y")
    assert {each["subject"] for each in joined.withdrawals} == {"x", "y", "z"}
    assert joined.hosts == ["a", "b"]


def test_a_restore_without_records_is_refused(deployment: Deployment) -> None:
    with pytest.raises(ServerError, match="no records of consent"):
        deployment.plan(at=None, without_records=False)


def test_a_restore_over_data_is_refused(deployment: Deployment) -> None:
    data = deployment.local / "postgres" / "data"
    data.mkdir(parents=True)
    with pytest.raises(ServerError, match="overwrites nothing"):
        deployment.plan(at=None, without_records=True)
    assert data.exists()


def test_keys_are_neither_shown_nor_written(deployment: Deployment) -> None:
    assert "not to be seen" not in repr(deployment.live.repository)
    secret = "PGBACKREST_REPO1_S3_KEY_SECRET"
    values = {**deployment.values, secret: "secret of the store"}
    for name, make in environment.GENERATED.items():
        values[name] = make()
    for service in (*environment.SERVICES, "sandbox"):
        given = environment.for_process(values, service)
        assert not given.keys() & {"BACKUP_KEY", secret}, service
    own = Deployment(deployment.root, values).live.repository
    assert own is not None
    assert own.environment(5432)[secret] == "secret of the store"


def test_a_full_backup_is_due_by_the_age_of_the_last_one() -> None:
    def made(kind: str, days: float) -> dict[str, Any]:
        start = 1e9 - days * 86400
        return {"type": kind, "timestamp": {"start": start, "stop": start + 3600}}

    for backups, due in (
        ([], True),
        ([made("incr", 0)], True),
        ([made("full", 20), made("full", 6), made("incr", 0)], False),
        # The machine was off on Sunday, so it is Monday.
        ([made("full", 8), made("incr", 5), made("incr", 0)], True),
        # A timer is never quite punctual, and a backup takes a while.
        ([made("full", 6.99), made("incr", 1)], True),
    ):
        assert full_is_due(backups, 1e9) is due, backups


def test_each_script_of_a_night_has_the_same_rule() -> None:
    nightly = (environment.ROOT / "deploy" / "backup" / "nightly.sh").read_text(encoding="utf-8")
    assert f"-mmin -{FULL_SECONDS / 60:.0f} " in nightly
    folder = environment.ROOT / "deploy" / "systemd"
    unit = (folder / "ostoja-backup.service").read_text(encoding="utf-8")
    assert "ExecStart=/opt/ostoja/.venv/bin/ostoja backup\n" in unit
