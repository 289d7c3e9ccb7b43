"""deploy/backup's scripts for containers, with real servers where Docker would run them."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.backup.repository import Repository
from deploy.up.environment import ROOT
from deploy.up.servers import Postgres
from tests.support.ports import Ports
from tests.support.servers import running

SCRIPTS = ROOT / "deploy" / "backup"
SECRET = "zażółć, a chat of Ewa"
KEY = "key of the backups"


def dump(*arguments: str, key: str = KEY) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "BACKUP_KEY": key}
    command = [str(SCRIPTS / "dump.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_dump_is_encrypted_and_brings_the_database_back(
    postgres: Postgres, tmp_path: Path
) -> None:
    def ask(statement: str, database: str = "dumped") -> str:
        dsn = postgres.dsn.removesuffix("postgres") + database
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, dsn]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    ask("CREATE DATABASE dumped", "postgres")
    ask(f"CREATE TABLE chat AS SELECT '{SECRET}'::text AS said")
    dsn = postgres.dsn.removesuffix("postgres") + "dumped"
    made = dump(str(tmp_path / "ostoja"), "pg_dump", "-Fp", dsn)
    assert made.returncode == 0, made.stderr
    (file,) = tmp_path.iterdir()
    today = datetime.now(UTC).astimezone().date()
    assert file.name == f"ostoja-{today}-until-{today + timedelta(days=35)}.enc"
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"CREATE TABLE" not in file.read_bytes()
    assert SECRET.encode() not in file.read_bytes()

    ask("DROP TABLE chat")
    plain = dump("--open", str(file)).stdout
    subprocess.run(["psql", "-Xq", dsn], input=plain, check=True, capture_output=True)
    assert ask("SELECT said FROM chat") == SECRET
    ask("DROP DATABASE dumped", "postgres")
    opened = dump("--open", str(file), key="of another deployment")
    assert opened.returncode != 0
    assert SECRET.encode() not in opened.stdout


def test_a_dump_goes_when_its_last_day_is_over(tmp_path: Path) -> None:
    today = datetime.now(UTC).astimezone().date()
    ended, last = (
        f"ostoja-{end - timedelta(days=35)}-until-{end}.enc"
        for end in (today - timedelta(days=1), today)
    )
    another = ended.replace("ostoja", "ostoja-old")
    for name in (ended, last, another):
        (tmp_path / name).touch()

    failed = dump(str(tmp_path / "ostoja"), "sh", "-c", f"echo '{SECRET}'; exit 3")
    assert failed.returncode == 3
    assert names(tmp_path) == sorted([ended, last, another])  # the old one is still the best

    assert dump(str(tmp_path / "ostoja"), "echo", SECRET).returncode == 0
    fresh = f"ostoja-{today}-until-{today + timedelta(days=35)}.enc"
    assert names(tmp_path) == sorted([last, another, fresh])


@pytest.mark.parametrize("arguments", [(), ("only-a-name",)])
def test_a_dump_of_nothing_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused = dump(*arguments)
    assert (refused.returncode, b"usage" in refused.stderr) == (2, True)
    assert names(tmp_path) == []


# `docker compose exec -T SERVICE COMMAND…`
DOCKER = """#!{python} -P
import sys
sys.path.insert(0, {root!r})
import subprocess
from pathlib import Path
from deploy.backup.repository import Repository
from deploy.up.servers import Postgres
service, *command = sys.argv[4:]
if service == "consent":
    command[2] = {records!r}
    sys.exit(subprocess.run(command).returncode)
repository = Repository(Path({repository!r}), {key!r}, {options!r})
server = Postgres(Path({data!r}), port={port}, password="superuser", repository=repository)
print(server.pgbackrest(*command[1:]))
"""


def test_old_backups_of_containers_expire(
    private_folder: Path, ports: Ports, tmp_path: Path
) -> None:
    place, records = tmp_path / "backup", tmp_path / "records"
    records.mkdir()
    (records / "withdrawals.jsonl").write_text(SECRET)
    options = {"PGBACKREST_REPO1_RETENTION_FULL": "2"}  # not four: each takes seconds
    repository = Repository(private_folder / "repository", KEY, options)
    server = Postgres(
        private_folder / "archived", port=ports.take(), password="superuser", repository=repository
    )
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    place.mkdir()
    docker.write_text(
        DOCKER.format(
            python=sys.executable, root=str(ROOT), key=KEY, options=options, port=server.port,
            records=str(records), repository=str(repository.folder), data=str(server.folder),
        )
    )  # fmt: skip
    docker.chmod(0o755)

    def night(days: float) -> list[str]:
        """Make a backup so many days after the last full one, and return which are kept."""
        if (place / "last-full").exists():
            then = time.time() - days * 24 * 3600
            os.utime(place / "last-full", (then, then))
        path = f"{docker.parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "BACKUP_DIR": str(place), "BACKUP_KEY": KEY}
        subprocess.run([SCRIPTS / "nightly.sh"], env=environment, check=True)
        (stanza,) = json.loads(server.pgbackrest("info", "--output=json"))
        return [each["label"] for each in stanza["backup"]]

    with running(server):
        server.pgbackrest("stanza-create")
        (first,) = night(0)
        _, changes = night(6)
        assert changes.startswith(f"{first}_")
        second = night(7)[-1]
        assert second.endswith("F")
        kept = night(7)
        assert [label for label in kept if label.startswith(first)] == []
        assert [label[-1] for label in kept] == ["F", "F"]
    (file,) = place.glob("consent-*.enc")
    assert SECRET.encode() not in file.read_bytes()
    listed = subprocess.run(["tar", "-xO"], input=dump("--open", str(file)).stdout,
                            check=True, capture_output=True)  # fmt: skip
    assert listed.stdout.decode() == SECRET
