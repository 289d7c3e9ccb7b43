"""Append-only files that outlive the database, for restores and audits."""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from libs.common.process.logs import log

M = TypeVar("M", bound=BaseModel)

_TAIL = 64 * 1024


class AppendOnlyFile:
    """One JSON object per line; any number of processes of a host may append to one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Append lines and return once they are on the disk; blocks.

        :raises OSError:
        """
        text = "".join(json.dumps(record) + "\n" for record in records)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self._locked() as descriptor:
            # A line that a crash cut off must not swallow this one; readers skip empty lines.
            _write_all(descriptor, f"\n{text}".encode())
            os.fsync(descriptor)
        if is_new:
            _sync_directory(self.path.parent)

    def keep(self, model: type[M], wanted: Callable[[M], bool]) -> None:
        """Drop the other lines, and damaged ones; blocks. A kill at any step leaves the file whole.

        :raises OSError:
        """
        unfinished = self.path.with_suffix(".new")
        with self._locked():
            with unfinished.open("w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                file.writelines(line for line, record in self._lines(model) if wanted(record))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self.path)
            _sync_directory(self.path.parent)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Open the file to append to, while no other process of this release writes it."""
        while True:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):  # not replaced since
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    async def append(self, *records: dict[str, Any]) -> None:
        """As `write`, in a separate thread."""
        await asyncio.to_thread(self.write, records)

    def read(self, model: type[M]) -> Iterator[M]:
        """Read every whole line; a damaged one is logged and skipped."""
        return (record for _, record in self._lines(model))

    def _lines(self, model: type[M]) -> Iterator[tuple[str, M]]:
        try:
            file = self.path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        with file:
            for number, line in enumerate(file, 1):
                if (record := _parse(line, model)) is not None:
                    yield line, record
                elif line.strip():
                    log.warning("append_only_file.damaged", file=self.path.name, line=number)

    def newest(self, model: type[M]) -> Iterator[M]:
        """Read the last whole lines, the newest first."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return
        for line in reversed(lines):
            if (record := _parse(line, model)) is not None:
                yield record


def _parse(line: str | bytes, model: type[M]) -> M | None:
    try:
        return model.model_validate_json(line)
    except ValidationError:
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
