"""The commands of docs/runbooks, run as an ops person types them, on a system of the test's own.

In a page a fence marked `sh run` is run by bash; a `text` fence right behind it is what it must
print, `…` standing for anything. What stands before the first heading of level two is run before
the commands of each.
"""

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.environment import DATABASE, DATABASE_PASSWORDS, ROOT, VHOST
from deploy.local.servers import Postgres, RabbitMQ, Redis
from tests.support import databases
from tests.support.databases import Databases
from tests.support.ports import Ports
from tests.support.stack import Stack, running_stack

RUNBOOKS = ROOT / "docs" / "runbooks"
SECONDS = 120.0
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_MARK = "\x1e"


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    """Of the page, where its commands begin."""
    commands: str
    expected: str | None

    def __str__(self) -> str:
        return f"docs/runbooks/{self.page}.md:{self.line}"


def sections(page: Path) -> dict[str, list[Block]]:
    """Return a page's commands by heading; the empty one holds those before the first."""
    text = page.read_text(encoding="utf-8")
    headings = [(0, ""), *((found.start(), found[1]) for found in _HEADING.finditer(text))]
    fences = list(_FENCE.finditer(text))
    found: dict[str, list[Block]] = {name: [] for _, name in headings}
    for fence, behind in zip(fences, [*fences[1:], None], strict=True):
        if fence["info"].split() != ["sh", "run"]:
            continue
        answers = (
            behind is not None
            and behind["info"].strip() == "text"
            and not text[fence.end() : behind.start()].strip()
        )
        line = text.count("\n", 0, fence.start("body")) + 1
        expected = behind["body"] if behind is not None and answers else None
        name = max(heading for heading in headings if heading[0] <= fence.start())[1]
        found[name].append(Block(page.stem, line, fence["body"], expected))
    return found


def answers(printed: str, expected: str) -> bool:
    """Compare word by word: a page breaks its lines where it likes."""
    parts = (" ".join(part.split()) for part in expected.split("…"))
    pattern = r"\s*.*?\s*".join(re.escape(part) for part in parts)
    return re.fullmatch(pattern, " ".join(printed.split()), re.DOTALL) is not None


class Checkout:
    """Where the ops person sits: the Makefile, .env and logs of one running system."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        self.stack = stack

    async def run(self, blocks: list[Block]) -> None:
        """Run blocks in one shell, one after the other, until one fails."""
        script = "\n".join(
            f"printf '%s' '{_MARK}{number}{_MARK}'\n{block.commands}"
            for number, block in enumerate(blocks)
        )
        process = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", script,
            cwd=self.folder,
            env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SECONDS):
                output, complaints = await process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        _, *told = output.decode().split(_MARK)
        printed = dict(zip(map(int, told[::2]), told[1::2], strict=True))
        for number, text in printed.items():
            block, is_last = blocks[number], number == len(printed) - 1
            seen = f"{block} printed:\n{text}\n{complaints.decode() if is_last else ''}"
            assert not (is_last and process.returncode), seen
            if block.expected is not None:
                assert answers(text, block.expected), f"{seen}\nand not:\n{block.expected}"


@contextmanager
def running_checkout(
    folder: Path, ports: Ports, own: Databases, servers: tuple[Postgres, RabbitMQ, Redis]
) -> Iterator[Checkout]:
    """Run the system under the names that it has in production, and a checkout around it."""
    postgres, rabbitmq, _ = servers
    own.drop(DATABASE)  # another test's
    with running_stack(folder, ports, own, servers, {}, names=(DATABASE, VHOST)) as stack:
        stack.values |= {
            "POSTGRES_PORT": str(postgres.port),
            "POSTGRES_SUPERUSER_PASSWORD": postgres.password,
            "RABBITMQ_PORT": str(rabbitmq.port),
            "RABBITMQ_UI_PORT": str(rabbitmq.management_port),
            "RABBITMQ_ADMIN_PASSWORD": rabbitmq.password,
            **{
                variable: databases.PASSWORDS[role] for role, variable in DATABASE_PASSWORDS.items()
            },
        }
        checkout = folder / "checkout"
        checkout.mkdir()
        for each in ROOT.iterdir():
            if each.name not in {".env", ".local", ".git"}:
                (checkout / each.name).symlink_to(each)
        (checkout / ".local").mkdir()
        (checkout / ".local" / "log").symlink_to(stack.folder / "log")
        lines = (f'{name}="{value}"' for name, value in stack.values.items())
        (checkout / ".env").write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield Checkout(checkout, stack)
