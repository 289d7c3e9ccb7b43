"""The journal of withdrawals forgets at the promised age, and nothing else."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from services.consent import metrics
from services.consent.recovery import journal, verifications
from services.consent.recovery.journal import JournalEntry
from services.consent.trail.append_only_file import AppendOnlyFile
from services.consent.trail.chain import Position
from services.consent.trail.checkpoints import Signer

DAYS = 1825
NOW = datetime.now(UTC)
YOUNG, OLD = NOW - timedelta(days=DAYS - 1), NOW - timedelta(days=DAYS + 1)


@pytest.fixture
def file(tmp_path: Path) -> AppendOnlyFile:
    return AppendOnlyFile(tmp_path / "withdrawals.jsonl")


def line(row: int, at: datetime | None = None, **more: Any) -> dict[str, Any]:
    withdrawn = {} if at is None else {"marketing": at.isoformat()}
    about = {"subject": str(uuid4()), "suppression_hash": "ab" * 32, "withdrawn": withdrawn}
    return {"row": row, "hash": f"{row:064x}"} | about | more


def rows(file: AppendOnlyFile) -> list[int]:
    return [entry.row for entry in file.read(JournalEntry)]


def test_what_is_older_than_any_replay_looks_at_is_dropped(file: AppendOnlyFile) -> None:
    restart = {"row": 0, "hash": "0" * 64, "at": OLD.isoformat()}
    file.write([line(1, OLD), line(2, YOUNG), line(3, OLD, erased_at=YOUNG.isoformat())])
    file.write([restart, line(4, OLD, erased_at=OLD.isoformat()), line(5), {"row": 6}])
    with file.path.open("a", encoding="utf-8") as appended:
        appended.write('{"row": 7, "suppr\n')
    file.write([line(8, YOUNG)])
    known = journal.read(file)
    journal.trim(file, DAYS)
    assert rows(file) == [2, 3, 0, 8]
    assert "suppr\n" not in file.path.read_text(encoding="utf-8")
    assert file.path.stat().st_mode & 0o777 == 0o600
    kept = journal.read(file)
    assert kept == {subject: known[subject] for subject in kept}
    before = file.path.stat().st_ino
    journal.trim(file, DAYS)
    assert file.path.stat().st_ino == before  # nothing to do


def test_the_newest_line_stays_so_that_a_restore_is_noticed(file: AppendOnlyFile) -> None:
    file.write([line(1, OLD), line(2, OLD)])
    journal.trim(file, DAYS)
    assert rows(file) == [2]


def test_no_line_that_is_written_during_a_trim_is_lost(file: AppendOnlyFile) -> None:
    """By several processes: each thread opens the file anew, as they do."""
    file.write([line(0, YOUNG)])

    def write(writer: int) -> None:
        for number in range(50):
            own = AppendOnlyFile(file.path)
            own.write([line(1000 * writer + number, YOUNG), line(1, OLD)])

    def trim() -> None:
        while not over:
            journal.trim(AppendOnlyFile(file.path), DAYS)

    over: list[bool] = []
    with ThreadPoolExecutor(6) as threads:
        trims = [threads.submit(trim) for _ in range(2)]
        writes = [threads.submit(write, writer) for writer in range(1, 5)]
        for each in writes:
            each.result()
        over.append(True)
        for each in trims:
            each.result()
    journal.trim(file, DAYS)
    written = {1000 * writer + number for writer in range(1, 5) for number in range(50)}
    assert written <= {*rows(file)}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_trim_that_dies_leaves_the_file_as_it_was(
    file: AppendOnlyFile, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file.write([line(1, OLD), line(2, YOUNG)])
    before = file.path.read_bytes()

    def die(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync" if step == "fsync" else "pathlib.Path.replace", die)
        with pytest.raises(OSError, match="no space"):
            journal.trim(file, DAYS)
    assert file.path.read_bytes() == before
    journal.trim(file, DAYS)
    assert rows(file) == [2]
    assert [json.loads(each)["row"] for each in file.path.read_text().split("\n") if each] == [2]


# The age of the last verified backup.

SIGNER = Signer("k1:" + "A" * 43 + "=")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def settings(folder: Path) -> Any:
    return SimpleNamespace(
        verification_file=AppendOnlyFile(folder / "verifications.jsonl"),
        checkpoint_file=AppendOnlyFile(folder / "checkpoints.jsonl"),
    )


async def shown(folder: Path) -> float:
    await verifications.show(settings(folder))
    return float(metrics.BACKUP_VERIFIED._value.get())


async def test_a_new_deployment_has_nothing_to_verify_yet(tmp_path: Path) -> None:
    assert await shown(tmp_path) >= (datetime.now(UTC) - timedelta(minutes=1)).timestamp()


async def test_without_any_backup_the_age_counts_from_the_first_checkpoint(tmp_path: Path) -> None:
    for day in range(3):
        seal = SIGNER.sign(Position(day + 1, bytes(32)), LONG_AGO + timedelta(days=day))
        settings(tmp_path).checkpoint_file.write([seal.model_dump(mode="json")])
    assert await shown(tmp_path) == LONG_AGO.timestamp()


async def test_the_newest_verification_counts_and_a_cut_line_does_not(tmp_path: Path) -> None:
    file = settings(tmp_path).verification_file
    file.write([{"at": (LONG_AGO + timedelta(days=day)).isoformat()} for day in (1, 2)])
    with file.path.open("a") as text:
        text.write('{"at": "2027-')
    assert await shown(tmp_path) == (LONG_AGO + timedelta(days=2)).timestamp()
