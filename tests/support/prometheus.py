"""A real Prometheus, and what its rules say."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from deploy.up.process import Process
from tests.support import checkers
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.promql import PROMETHEUS

_SPANS = {
    r"for: \w+": "for: 0s",
    r"\[5m\]": "[6s]",
    r"\[1h\]": "[20s]",
    r"seconds > 60": "seconds > 3",
}


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    async def ask(self, kind: str, **parameters: str) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self._url}/api/v1/{kind}", params=parameters) as answer,
        ):
            told = await answer.json()
            assert told["status"] == "success", told
            return told["data"]

    async def firing(self) -> set[str]:
        """Return the pages that the rules that fire just now name."""
        alerts: list[Any] = (await self.ask("alerts"))["alerts"]
        urls = {one["annotations"]["runbook_url"] for one in alerts if one["state"] == "firing"}
        return {Path(url).stem for url in urls}


class Running(Prometheus):
    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(f"http://{HOST}:{port}")
        self.log = folder / "prometheus.log"
        self.process = Process(folder / "prometheus.pid")

    async def ready(self) -> None:
        async def answers() -> bool:
            assert self.process.pid is not None, self.log.read_text("utf-8")
            try:
                return bool((await self.ask("targets"))["activeTargets"])
            except aiohttp.ClientError:
                return False

        await eventually(answers, 30)


@contextmanager
def running_prometheus(folder: Path, configuration: Any, port: int) -> Iterator[Running]:
    """Start Debian's Prometheus, and do not wait for it."""
    checkers.require("prometheus")
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    running = Running(folder, port)
    running.process.spawn(
        [
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{port}",
        ],
        env=os.environ,
        cwd=folder,
        log=running.log,
    )
    try:
        yield running
    finally:
        running.process.stop(15, 10)


def quick_prometheus(folder: Path) -> Path:
    """Write our configuration with rules that wait for seconds, not minutes."""
    made = shutil.copytree(PROMETHEUS, folder / "prometheus")
    for name, changes in (
        ("rules.yml", _SPANS),
        ("prometheus.yml", {"_interval: 15s": "_interval: 1s"}),
        ("three-hosts.yml", {"_interval: 15s": "_interval: 1s"}),
    ):
        text = (made / name).read_text(encoding="utf-8")
        for span, shorter in changes.items():
            text = re.sub(span, shorter, text)
        (made / name).write_text(text, encoding="utf-8")
    return made
