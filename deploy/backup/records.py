"""The records of consent in a backup: each host's own, joined for a restore."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WITHDRAWALS, CHECKPOINTS = "withdrawals.jsonl", "checkpoints.jsonl"


@dataclass(frozen=True, slots=True)
class Joined:
    withdrawals: list[dict[str, Any]]
    """From all hosts, the newest position last: consent compares that with the restored trail."""
    checkpoints: list[dict[str, Any]]
    """In the order of rows."""
    hosts: list[str]


def join(folders: Iterable[Path]) -> Joined:
    """Read the records of several hosts; cut lines are skipped, as consent does."""
    found = [folder for folder in folders if (folder / WITHDRAWALS).exists()]
    files = [_lines(folder / WITHDRAWALS) for folder in found]
    files.sort(key=lambda lines: lines[-1]["row"] if lines else -1)
    seals = {
        (each["rows"], each["hash"], each["at"]): each
        for folder in found
        for each in _lines(folder / CHECKPOINTS)
    }
    return Joined(
        withdrawals=[line for lines in files for line in lines],
        checkpoints=[seals[key] for key in sorted(seals)],
        hosts=sorted(folder.name for folder in found),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    needed = {"rows", "hash", "at"} if path.name == CHECKPOINTS else {"row", "hash"}
    found = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.keys() >= needed:
                found.append(record)
    return found


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write a file whole, or leave the one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new")
    unfinished.touch(mode=0o600)
    with unfinished.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def copy(source: Path, target: Path) -> None:
    """Copy the checkpoints; consent writes a second file of withdrawals itself."""
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in source.glob("*.jsonl"):
        if path.name == WITHDRAWALS:
            continue
        copied = target / path.name
        unfinished = copied.with_suffix(".new")
        shutil.copy2(path, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(copied)
