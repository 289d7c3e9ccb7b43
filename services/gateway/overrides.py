"""Which limits are in force: the environment's, or what an admin set at run time.

Overrides live in one Redis hash, are polled every second, and are mirrored to a state file. The
newer version wins, wherever it is: a Redis that lost its memory is told again what is in force.
"""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.common import logs
from services.gateway.limits import Limiter, Window
from services.gateway.redis_pipe import RedisAway, RedisPipe

log = logs.get_logger(__name__)

KEY = "ostoja:limits"
POLL_SECONDS = 1.0
CHANGEABLE = ("chat", "hour", "minute")

AGREE = """
local kept = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if tonumber(ARGV[1]) > kept then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'version', unpack(ARGV))
end
return redis.call('HGETALL', KEYS[1])
"""

CHANGE = """
local kept = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
local time = redis.call('TIME')
local version = math.max(kept + 1, time[1] * 1000)
redis.call('HSET', KEYS[1], 'version', string.format('%.0f', version))
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return redis.call('HGETALL', KEYS[1])
"""

SCRIPTS = (AGREE, CHANGE)


class ChangeUnknown(Exception):  # noqa: N818 - reads as what happened
    """Redis was told of the change, and did not say whether it made it."""


@dataclass(frozen=True, slots=True)
class Rules:
    windows: Mapping[str, Window]
    sources: Mapping[str, str]
    """For each window: default, env or override."""

    @property
    def policies(self) -> dict[str, tuple[Window, ...]]:
        windows = self.windows
        return {
            "chat": (windows["chat"],),
            "api": (windows["minute"], windows["hour"]),
            "service": (windows["service"],),
        }


class Overrides:
    def __init__(self, redis: RedisPipe, limiter: Limiter, configured: Rules, file: Path) -> None:
        self._redis = redis
        self._limiter = limiter
        self._configured = configured
        self._file = file
        self._version = 0
        self._limits: dict[str, str] = {}
        self.rules = configured
        self.policies = configured.policies
        self._read_file()

    async def change(self, changes: Mapping[str, str | None]) -> None:
        """Set (or with None take back) overrides for all gateways.

        :raises RedisAway: nothing has changed
        :raises ChangeUnknown: the change may be in force within seconds; to ask again is harmless
        """
        await self._agree()
        arguments = [text for name, limit in changes.items() for text in (name, limit or "")]
        try:
            await self._redis.evaluate(CHANGE, KEY, arguments, self._hear)
        except RedisAway as error:
            raise ChangeUnknown from error

    async def poll_forever(self) -> None:
        while True:
            with suppress(RedisAway):  # what was in force stays in force
                await self._agree()
            self._limiter.report()
            await asyncio.sleep(POLL_SECONDS)

    async def _agree(self) -> None:
        pairs = [text for pair in self._limits.items() for text in pair]
        await self._redis.evaluate(AGREE, KEY, [self._version, *pairs], self._hear)

    def _hear(self, answer: list[bytes]) -> None:
        fields = [text.decode() for text in answer]
        heard = dict(zip(fields[::2], fields[1::2], strict=True))
        version = int(heard.pop("version", "0"))
        if version > self._version:
            self._version, self._limits = version, heard
            self._apply()
            self._write_file()

    def _apply(self) -> None:
        windows, sources = dict(self._configured.windows), dict(self._configured.sources)
        for name in CHANGEABLE:
            if name in self._limits:
                try:
                    windows[name] = Window.parse(name, self._limits[name])
                except ValueError as error:  # not written by us
                    log.error("limits.override_ignored", name=name, error=str(error))  # noqa: TRY400
                else:
                    sources[name] = "override"
        self.rules = Rules(windows, sources)
        self.policies = self.rules.policies
        self._limiter.forget_all_but(list(windows.values()))
        in_force = {name: str(window) for name, window in windows.items()}
        log.info("limits.in_force", limits=in_force, sources=sources, version=self._version)

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
        # The mirror helps only when Redis is away or empty too: a fault in it stops nothing.
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("limits.state_file", file=str(self._file), error=repr(error))  # noqa: TRY400
