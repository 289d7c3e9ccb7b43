"""The limits in force: from the environment, or set by an admin at run time.

Overrides live in one Redis hash, are polled every second, and are mirrored to a state file. The
newest version wins, wherever it is: a Redis that lost its data gets the overrides again.
"""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from libs.common.database.redis_pipeline import RedisPipeline, RedisUnavailable
from libs.common.process.logs import log
from services.gateway.door.limits import Limiter, Schedule, Window, merged

KEY = "ostoja:limits"
POLL_SECONDS = 1.0
CHANGEABLE = ("chat", "hour", "minute", "chat_budget", "write_budget", "withdrawal_budget")


class ChangeUnknown(Exception):  # noqa: N818 - reads as what happened
    """The change was sent to Redis, which did not confirm it."""


@dataclass(frozen=True, slots=True)
class Rules:
    schedules: Mapping[str, Schedule]
    sources: Mapping[str, str]
    """For each limit: default, env or override."""
    zone: ZoneInfo

    def now(self) -> dict[str, Window]:
        local = datetime.now(self.zone)
        return {name: schedule.at(local) for name, schedule in self.schedules.items()}

    def policies(self) -> dict[str, tuple[Window, ...]]:
        now = self.now()
        return {name: (window,) for name, window in now.items()} | {
            "chat": merged((now["chat"], now["chat_budget"].part)),
            "api": merged((now["minute"], now["hour"])),
        }


class Overrides:
    def __init__(
        self, redis: RedisPipeline, limiter: Limiter, configured: Rules, file: Path
    ) -> None:
        self._redis = redis
        self._limiter = limiter
        self._configured = configured
        self._file = file
        self._version = 0
        self._limits: dict[str, str] = {}
        self.rules = configured
        self.policies = configured.policies()
        self._read_file()

    async def change(self, changes: Mapping[str, str | None]) -> None:
        """Set overrides for all gateways, or remove them with None.

        :raises RedisUnavailable: nothing has changed
        :raises ChangeUnknown: the change may take effect within seconds; repeating it is harmless
        """
        await self._synchronise()
        arguments = [text for name, limit in changes.items() for text in (name, limit or "")]
        try:
            await self._redis.evaluate("change", (KEY,), arguments, self._adopt)
        except RedisUnavailable as error:
            raise ChangeUnknown from error

    async def poll_forever(self) -> None:
        while True:
            with suppress(RedisUnavailable):  # the limits stay as they are
                await self._synchronise()
            self.policies = self.rules.policies()  # the hour may have changed
            self._limiter.report()
            await asyncio.sleep(POLL_SECONDS)

    async def _synchronise(self) -> None:
        pairs = [text for pair in self._limits.items() for text in pair]
        await self._redis.evaluate("synchronise", (KEY,), [self._version, *pairs], self._adopt)

    def _adopt(self, answer: list[bytes]) -> None:
        fields = [text.decode() for text in answer]
        received = dict(zip(fields[::2], fields[1::2], strict=True))
        version = int(received.pop("version", "0"))
        if version > self._version:
            self._version, self._limits = version, received
            self._apply()
            self._write_file()

    def _apply(self) -> None:
        schedules, sources = dict(self._configured.schedules), dict(self._configured.sources)
        for name in CHANGEABLE:
            if name in self._limits:
                try:
                    schedules[name] = Schedule.parse(name, self._limits[name])
                except ValueError as error:  # not written by us
                    log.error("limits.override_ignored", name=name, error=str(error))  # noqa: TRY400
                else:
                    sources[name] = "override"
        self.rules = Rules(schedules, sources, self._configured.zone)
        self.policies = self.rules.policies()
        self._limiter.forget_all_but(
            [window for schedule in schedules.values() for window in schedule.windows]
        )
        in_force = {name: str(schedule) for name, schedule in schedules.items()}
        log.info("limits.configured", limits=in_force, sources=sources, version=self._version)

    def _read_file(self) -> None:
        with self._file_faults_logged():
            if self._file.exists():
                kept: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
                self._version, self._limits = int(kept["version"]), dict(kept["limits"])
        self._apply()

    def _write_file(self) -> None:
        with self._file_faults_logged():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new = self._file.with_suffix(f".{os.getpid()}")  # other workers write it too
            new.write_text(json.dumps({"version": self._version, "limits": self._limits}))
            new.replace(self._file)  # a crash leaves the old file or the new one

    @contextmanager
    def _file_faults_logged(self) -> Iterator[None]:
        # The file is needed only if Redis is unavailable or empty: its errors stop nothing.
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("limits.state_file", file=str(self._file), error=repr(error))  # noqa: TRY400
