"""All processes' metrics, and RabbitMQ's, in one scrape: `/metrics/all`, on the gateway's port.

What a Prometheus that scraped each process itself would have stored: `job`, `instance` and `up` are
added, and a label of that name is put aside as `exported_job`. So it is to be taken as another
Prometheus' /federate is, with `honor_labels: true`.
"""

import asyncio
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import ClientError, ClientSession, ClientTimeout, hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from libs.common import logs, serving
from libs.common.service import Service
from services.gateway.settings import GatewaySettings

log = logs.get_logger(__name__)

ANSWER_SECONDS = 4.0
"""For all of them together; Prometheus gives up after 10 unless told otherwise."""

MOST_BYTES = 4 * 1024 * 1024
MOST_REPLICAS = 32
OWN = "gateway"
_LABEL = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class Process:
    job: str
    instance: str
    """Host and port; the name, where no address is known."""
    metrics: str | None
    """None: it does not answer."""


class Scrape:
    def __init__(
        self, registry: CollectorRegistry, jobs: Mapping[str, tuple[str, int, str]]
    ) -> None:
        """:param jobs: host, port and path of each; several addresses are several replicas"""
        self._registry = registry
        self._jobs = jobs

    async def handle(self, request: web.Request) -> web.Response:
        own = Process(OWN, request.host, generate_latest(self._registry).decode())
        async with ClientSession(timeout=ClientTimeout(total=ANSWER_SECONDS)) as session:
            found = await asyncio.gather(
                *(self._job(session, job, *where) for job, where in self._jobs.items())
            )
        text = merged([own, *(process for each in found for process in each)])
        return web.Response(body=text.encode(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    async def _job(
        self, session: ClientSession, job: str, host: str, port: int, path: str
    ) -> Sequence[Process]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                addresses = await _addresses(host, port)
        except (OSError, TimeoutError):
            return [Process(job, f"{host}:{port}", None)]
        return await asyncio.gather(
            *(self._replica(session, job, address, port, path) for address in addresses)
        )

    async def _replica(
        self, session: ClientSession, job: str, address: str, port: int, path: str
    ) -> Process:
        instance = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        body = bytearray()
        try:
            async with session.get(
                f"http://{instance}{path}", allow_redirects=False, raise_for_status=True
            ) as answer:
                async for part in answer.content.iter_any():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise ClientError("too long")  # noqa: TRY301 - as any other bad answer
            return Process(job, instance, body.decode())
        except (OSError, TimeoutError, ClientError, UnicodeError) as error:
            log.warning("scrape.failed", job=job, instance=instance, error=repr(error))
            return Process(job, instance, None)


async def serve(
    service: Service, settings: GatewaySettings, registry: CollectorRegistry = REGISTRY
) -> None:
    """Listen on METRICS_PORT for a scrape of the gateway alone, and of all."""
    everything = web.get("/metrics/all", Scrape(registry, settings.scraped()).handle)
    await serving.serve_metrics(
        service, settings.http_host, settings.metrics_port, registry, [everything]
    )


async def _addresses(host: str, port: int) -> list[str]:
    """Resolve what may be several replicas; the same one in both IP versions is not two."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    by_family: dict[int, list[str]] = {}
    for family, _, _, _, address in found:
        by_family.setdefault(family, []).append(str(address[0]))
    chosen = by_family.get(socket.AF_INET) or by_family[socket.AF_INET6]
    return sorted(set(chosen))[:MOST_REPLICAS]


def merged(processes: Iterable[Process]) -> str:
    """Write what all of them measured, each metric in one piece as the format wants it."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {"up": []}
    for process in processes:
        labels = f'job="{process.job}",instance="{process.instance}"'
        samples["up"].append(f"up{{{labels}}} {int(process.metrics is not None)}")
        name = ""
        for line in (process.metrics or "").splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                name = line.split(" ", 3)[2]
                head = heads.setdefault(name, [])
                if len(head) < 2 and name not in samples:
                    head.append(line)
            elif line and not line.startswith("#"):
                samples.setdefault(name, []).append(_labelled(line, labels))
    heads["up"] = ["# HELP up 1 where the process answered.", "# TYPE up gauge"]
    lines = (line for name in samples for line in (*heads.get(name, ()), *samples[name]))
    return "".join(f"{line}\n" for line in lines)


def _labelled(sample: str, labels: str) -> str:
    name, brace, rest = sample.partition("{")
    if not brace:
        name, _, value = sample.partition(" ")
        return f"{name}{{{labels}}} {value}"
    return f"{name}{{{labels},{_LABEL.sub(_set_aside, rest)}"


def _set_aside(label: re.Match[str]) -> str:
    return f"exported_{label[0]}" if label[1] in {"job", "instance"} else label[0]
