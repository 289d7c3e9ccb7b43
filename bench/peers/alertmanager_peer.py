"""Sends alerts to Alertmanager, each in its own group, so that each causes one POST."""

import asyncio
import os
import sys
from pathlib import Path

import aiohttp

from bench.peers import TEXT

CONFIG = """
route: {{receiver: sink, group_by: ["..."], group_wait: 0s, group_interval: 1m}}
receivers: [{{name: sink, webhook_configs: [{{url: "{sink}", send_resolved: false}}]}}]
"""


def configure(path: Path, sink: str) -> None:
    path.write_text(CONFIG.format(sink=sink), encoding="utf-8")


async def send(count: int) -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for first in range(0, count, 100):
            alerts = [
                {"labels": {"alertname": "bench", "id": str(each)}, "annotations": {"text": TEXT}}
                for each in range(first, min(first + 100, count))
            ]
            async with session.post(os.environ["ALERTMANAGER_URL"], json=alerts) as answer:
                await answer.read()


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[2])))
