"""A worker of the gateway that only purges: number 0 finds 3 entries, number 1 finds 4.

Number 0 asks for a purge of all when there is a file PURGED, and writes the sum into it. With
FROZEN, number 1 says that it serves and nothing after that.
"""

import asyncio
import os
import time
from pathlib import Path

from services.gateway.workers import NUMBER, Line

NAME = os.environ["PURGED"]


async def main() -> None:
    number, line = int(os.environ[NUMBER]), Line.of_environment()
    assert line is not None

    def purge() -> int:
        if number == 1 and os.environ["FROZEN"]:
            time.sleep(8)
        return 3 + number

    holding = asyncio.create_task(line.hold(purge))
    if number == 0:
        while not await asyncio.to_thread(os.path.exists, NAME):  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.05)
        tell(await line.purge_all())
    await holding


def tell(purged: int) -> None:
    Path(NAME).write_text(str(purged))


asyncio.run(main())
