"""Back up, verify and restore a deployment that `make up` runs.

What a kill -9 leaves behind: a backup that is not listed (the next one removes it), a verification
without a time stamp, or a restored folder without services; `restore` then asks to remove it.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psycopg2

from deploy.backup import records
from deploy.backup.repository import Repository, repository
from deploy.up import environment
from deploy.up.environment import DATABASE, SERVICES, VHOST
from deploy.up.process import HOST, Process, ServerError, wait_until
from deploy.up.servers import Postgres, manage

RECOVERY_SECONDS = 6 * 3600.0
REPLAY_SECONDS = 900.0
FULL_SECONDS = 6.5 * 24 * 3600  # the same as in nightly.sh
VERIFICATIONS = "verifications.jsonl"
_ENDS = ("delivered", "pending", "failed", "discarded", "in_doubt")


def full_is_due(backups: Sequence[Mapping[str, Any]], now: float) -> bool:
    """Decide by age, not by the day of the week: a machine may be off on Sundays.

    :param backups: as pgBackRest's `info` lists them
    """
    begun = [each["timestamp"]["start"] for each in backups if each["type"] == "full"]
    return now - max(begun, default=0) > FULL_SECONDS


@dataclass(frozen=True)
class Deployment:
    """A folder with .env and .local."""

    root: Path
    values: Mapping[str, str] = field(repr=False)

    @property
    def local(self) -> Path:
        return self.root / ".local"

    @property
    def own_records(self) -> Path:
        return self.root / self.values["CONSENT_RECORDS_DIR"]

    @property
    def place(self) -> Path:
        return self._repository.folder.parent

    @cached_property
    def _repository(self) -> Repository:
        found = repository(self.values, self.root)
        if found is None:
            raise ServerError("no BACKUP_DIR is set in .env: docs/backup.md says where to begin")
        return found

    def _postgres(self, folder: Path, port: int, **settings: str) -> Postgres:
        return Postgres(
            folder,
            port=port,
            password=self.values["POSTGRES_SUPERUSER_PASSWORD"],
            log=self.local / "log" / f"{folder.name}.log",
            repository=self._repository,
            settings=settings,
        )

    @property
    def live(self) -> Postgres:
        return self._postgres(
            self.local / "postgres", environment.port(self.values, "POSTGRES_PORT")
        )

    def backup(self, *, full: bool) -> dict[str, Any]:
        """Make a backup: of everything once a week or if `full`, else of what changed.

        :raises ServerError: a part failed
        """
        if self.live.pid is None:
            raise ServerError("PostgreSQL does not run here: `make up` starts it")
        self.live.pgbackrest("stanza-create")
        self.live.pgbackrest("check")  # the log arrives
        records.copy(self.own_records, self.place / "records" / socket.gethostname())
        self._copy_config()
        full = full or full_is_due(self._stanza().get("backup", ()), time.time())
        self.live.pgbackrest("backup", f"--type={'full' if full else 'incr'}")
        return self.newest()

    def _stanza(self) -> dict[str, Any]:
        (stanza,) = json.loads(self.live.pgbackrest("info", "--output=json"))
        return dict(stanza)

    def _copy_config(self) -> None:
        kept = self.place / "config"
        fresh = self.place / "config.new"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(self.root / "config", fresh / "config")
        definitions = json.dumps(self._rabbitmq("GET"), indent=1)
        (fresh / "rabbitmq.json").write_text(definitions, encoding="utf-8")
        shutil.rmtree(kept, ignore_errors=True)
        fresh.rename(kept)

    def _rabbitmq(self, method: str, body: Any = None) -> Any:
        """Read or write the vhost's definitions: queues and policies, no users and no messages."""
        url = f"http://{HOST}:{self.values['RABBITMQ_UI_PORT']}"
        account = ("admin", self.values["RABBITMQ_ADMIN_PASSWORD"])
        try:
            return manage(url, account, method, f"definitions/{VHOST}", body)
        except (OSError, HTTPException) as error:
            raise ServerError(f"RabbitMQ's definitions: {error}") from None

    def newest(self) -> dict[str, Any]:
        """Return label, time and size of the newest backup.

        :raises ServerError: there is none, or BACKUP_KEY is another backup's
        """
        (self.local / "postgres").mkdir(parents=True, exist_ok=True)
        stanza = self._stanza()
        if not stanza.get("backup"):
            message = stanza["status"]["message"]
            raise ServerError(f"{self.place} has no backup that BACKUP_KEY opens: {message}")
        last = stanza["backup"][-1]
        at = datetime.fromtimestamp(last["timestamp"]["stop"], UTC)
        return {
            "backup": last["label"],
            "at": at.isoformat(),
            "bytes": last["info"]["size"],
            "stored_bytes": last["info"]["repository"]["delta"],
        }

    def verify(self) -> dict[str, Any]:
        """Restore the newest backup to a server of its own, check it, and record that it is good.

        :raises ServerError: it cannot be restored, or a check failed; nothing is recorded then
        """
        began = time.monotonic()
        found = self.newest()
        if self.live.pid is not None:
            self.live.pgbackrest("check")
        with self._restored_elsewhere() as server:
            checked = self._check(server, [self.own_records, *self._hosts()])
        answer = {
            **found,
            "verified_at": datetime.now(UTC).isoformat(),
            "seconds": round(time.monotonic() - began, 1),
            **checked,
        }
        if not checked["ok"]:
            raise ServerError(f"the restored backup is not whole: {json.dumps(answer)}")
        # Appended at once: a reader sees a whole line or none.
        self.own_records.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"at": answer["verified_at"], "backup": answer["backup"]}) + "\n"
        with (self.own_records / VERIFICATIONS).open("a", encoding="utf-8") as file:
            file.write(line)
        return answer

    @contextmanager
    def _restored_elsewhere(self) -> Iterator[Postgres]:
        folder = self.local / "verify"
        # Its own log must not reach the repository, where it would continue the live server's.
        server = self._postgres(folder, _free_port(), archive_mode="off")
        server.stop()  # of a killed verification
        shutil.rmtree(folder, ignore_errors=True)
        try:
            server.restore()
            _start(server)
            yield server
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def _hosts(self) -> list[Path]:
        return sorted(path for path in (self.place / "records").glob("*") if path.is_dir())

    def _check(self, server: Postgres, folders: Sequence[Path]) -> dict[str, Any]:
        """Return what a restored database says of itself: the trail as `consent verify` does.

        :param folders: with signed checkpoints, with which the trail must agree
        """
        rows, folder = _head(server), self.local / "verify-records"
        known = [each for each in records.join(folders).checkpoints if each["rows"] <= rows]
        try:
            records.write(folder / records.CHECKPOINTS, known)
            changed = {**self.values, "POSTGRES_PORT": str(server.port)}
            changed["CONSENT_RECORDS_DIR"] = str(folder)
            done = subprocess.run(
                [sys.executable, "-m", "services.consent", "verify"],
                env={
                    **os.environ,
                    **environment.for_process(changed, "consent"),
                    "PYTHONPATH": str(environment.ROOT),
                },
                cwd=self.root,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if done.returncode not in {0, 1} or not done.stdout:
            raise ServerError(f"the trail could not be checked:\n{done.stderr[-2000:]}")
        ledger = asyncio.run(_ledger(environment.database_url(changed, "alerts")))
        balanced = ledger["accepted"] == sum(ledger[name] for name in _ENDS)
        trail = json.loads(done.stdout.splitlines()[-1])
        return {"ok": trail["ok"] and balanced, "trail": trail, "ledger": ledger}

    def plan(self, *, at: str | None, without_records: bool) -> list[str]:
        """Say what a restore would do, line by line.

        :raises ServerError: something runs here, there are data, or a part of the backup is missing
        """
        self._refuse_over_data()
        joined = self._joined()
        if not joined.withdrawals and not without_records:
            raise ServerError(
                f"no records of consent in {self.place}/records or {self.own_records}: withdrawals "
                "and erasures since the backup would be undone (--without-records: there were none)"
            )
        subjects = {line["subject"] for line in joined.withdrawals if line.get("subject")}
        newest = self.newest()
        backup, until = f"{newest['backup']} of {newest['at']}", f"the log up to {at}"
        until = until if at else "all of the log after it"
        hosts = ", ".join(joined.hosts) or "NONE: withdrawals and erasures since then are lost"
        folder = self.local / "postgres"
        return [
            f"restore the database from the backup {backup} and {until}, into {folder}",
            f"put back the records of consent: {hosts} ({len(subjects)} people)",
            "put back missing files of config/",
            "start everything, repeat withdrawals and erasures, and check the trail and the ledger",
        ]

    def _refuse_over_data(self) -> None:
        running = [self.local / "run" / f"{name}.pid" for name in ("supervisor", *SERVICES)]
        running += [self.local / name / "server.pid" for name in ("postgres", "rabbitmq", "redis")]
        if names := [path.parent.name for path in running if Process(path).pid is not None]:
            raise ServerError(f"it runs here ({', '.join(sorted({*names}))}): `make down` first")
        if (data := self.local / "postgres" / "data").exists():
            raise ServerError(f"{data} exists: move it away, a restore overwrites nothing")
        with suppress(OSError, HTTPException), self._gateway("health", 5):
            raise ServerError("a gateway answers on GATEWAY_PORT: a live deployment")

    def _joined(self) -> records.Joined:
        return records.join([*self._hosts(), self.own_records])

    def _gateway(self, path: str, seconds: float, body: bytes | None = None) -> Any:
        """Call it; send the key only with a body, because what answers may not be our gateway."""
        headers = {
            "X-ADMIN-API-KEY": self.values["ADMIN_API_KEY"],
            "X-Operator": "ostoja restore",
            "Content-Type": "application/json",
        }
        url = f"http://{HOST}:{self.values['GATEWAY_PORT']}/api/{path}"
        request = urllib.request.Request(url, body, headers if body else {})
        return urllib.request.urlopen(request, timeout=seconds)

    def restore(self, at: str | None, report: Callable[[str], None]) -> dict[str, Any]:
        """Do what `plan` said, and check it.

        :raises ServerError: which step failed; remove what is in .local, then repeat
        """
        began = time.monotonic()
        joined = self._joined()
        server = self.live
        options = ("--type=time", f"--target={at}", "--target-action=promote")
        server.restore(*(options if at else ()))
        report(f"{time.monotonic() - began:.0f} s: the files are back; the log is replayed")
        _start(server)
        report(f"{time.monotonic() - began:.0f} s: the database is back")
        _pause_subscriptions(server)
        self._put_back(joined, _head(server))
        server.stop()  # `make up` must find its ports free
        self._start_everything()
        self._rabbitmq("POST", json.loads((self.place / "config" / "rabbitmq.json").read_text()))
        report(f"{time.monotonic() - began:.0f} s: everything runs; erasures are repeated")
        replayed = self._replay()
        checked = self._check(server, [self.own_records])
        return {"seconds": round(time.monotonic() - began, 1), "replayed": replayed, **checked}

    def _put_back(self, joined: records.Joined, rows: int) -> None:
        """Write the records before any service starts: they keep permits closed."""
        records.write(self.own_records / records.WITHDRAWALS, joined.withdrawals)
        # A checkpoint of a row that the backup lacks says, rightly, that the trail was cut.
        kept = [each for each in joined.checkpoints if each["rows"] <= rows]
        lost = [each for each in joined.checkpoints if each["rows"] > rows]
        if lost:
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
            records.write(self.own_records / f"checkpoints-lost-{stamp}.jsonl", lost)
        records.write(self.own_records / records.CHECKPOINTS, kept)
        for path in (self.place / "config" / "config").rglob("*"):
            own = self.root / "config" / path.relative_to(self.place / "config" / "config")
            if path.is_file() and not own.exists():
                own.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, own)

    def _start_everything(self) -> None:
        shell = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, "-m", "deploy.up", "up"],
            env=shell,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"the start failed; correct it, then `make up`:\n{done.stdout}")

    def _replay(self) -> dict[str, Any]:
        """Repeat the erasures until each is ordered; permits stay closed until then."""
        deadline = time.monotonic() + REPLAY_SECONDS
        while time.monotonic() < deadline:
            # A service that is still starting does not answer.
            with suppress(OSError, HTTPException):
                with self._gateway("consent/replay-erasures", 60, b"{}") as answer:
                    found: dict[str, Any] = json.loads(answer.read())
                if answer.status == 200:
                    return found
            time.sleep(2)
        raise ServerError(
            "erasures are not repeated, and permits stay closed: see "
            "docs/runbooks/data-subject-requests.md, After a restore from a backup"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _start(server: Postgres) -> None:
    """Start it, and wait until the log is replayed and it accepts writes."""
    server.launch()
    wait_until(
        "the restored database",
        RECOVERY_SECONDS,
        lambda: _ask(server, "SELECT NOT pg_is_in_recovery()", "postgres") is True,
        lambda: server.pid is not None,
    )


def _head(server: Postgres) -> int:
    return int(_ask(server, "SELECT coalesce(max(id), 0) FROM consent.consent_audit_log"))


def _pause_subscriptions(server: Postgres) -> None:
    """Who was to get nothing more since the backup, or lost their key, must be looked at first."""
    if _ask(server, "SELECT to_regclass('alerts.subscription') IS NOT NULL"):
        paused = "UPDATE alerts.subscription SET paused = 'restored' WHERE paused IS NULL"
        _ask(server, f"WITH changed AS ({paused} RETURNING 1) SELECT count(*) FROM changed")


def _ask(server: Postgres, statement: str, database: str = DATABASE) -> Any:
    """Return one value; None while the server does not accept connections."""
    try:
        connected = psycopg2.connect(f"{server.dsn.removesuffix('/postgres')}/{database}")
    except psycopg2.OperationalError:
        time.sleep(0.5)
        return None
    with closing(connected), connected, connected.cursor() as cursor:
        cursor.execute(statement)
        (value,) = cursor.fetchone() or (None,)
        return value


async def _ledger(database_url: str) -> dict[str, int]:
    from libs.common.database import postgres
    from services.alerts.store.ledger import queries

    async with (
        postgres.connect(database_url, application_name="ostoja verify", pool_size=1) as engine,
        engine.begin() as tx,
    ):
        return await queries.check(tx, [], 0)
