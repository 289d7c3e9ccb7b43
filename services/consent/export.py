"""Requests a data subject's records from the other services over the broker, page by page."""

import asyncio
from asyncio import timeout
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from libs.common.messaging.rpc import NoReply, Requester
from libs.common.process.logs import log
from services.consent import messages
from services.consent.messages import Trace
from services.consent.rules import Subject
from services.consent.topology import ALERTS, FOLLOWUPS_COMMANDS

_EXCHANGES = {"followups": FOLLOWUPS_COMMANDS, "alerts": ALERTS}

Records = dict[str, list[dict[str, Any]]]
"""Records by kind."""


async def gather(
    requester: Requester, subject: Subject, seconds: float
) -> tuple[Mapping[str, Records], list[str]]:
    """Ask every service; followups first, because it knows what links the subject to alerts.

    :returns: the records by service, and the services that did not send all in time
    """
    found: dict[str, Records] = {}
    incomplete = []
    for name in _EXCHANGES:
        records: Records = {}
        traces, complete = await _ask(requester, name, subject, seconds, partial(_add, records))
        for trace in traces:
            subject = subject.traced(trace.conversations, trace.phones)
        found[name] = records
        incomplete += [] if complete else [name]
    return found, incomplete


def _add(found: Records, page: Records) -> None:
    for kind, records in page.items():
        found.setdefault(kind, []).extend(records)


async def addresses(
    requester: Requester, seconds: float, look: Callable[[Records], None]
) -> list[str]:
    """Read all addresses that the other services store, page by page.

    :returns: the services that did not send all in time
    """
    asked = await asyncio.gather(
        *(_ask(requester, name, Subject(), seconds, look) for name in _EXCHANGES)
    )
    return [name for name, (_, complete) in zip(_EXCHANGES, asked, strict=True) if not complete]


async def _ask(
    requester: Requester,
    name: str,
    subject: Subject,
    seconds: float,
    take: Callable[[Records], None],
) -> tuple[list[Trace], bool]:
    after: list[Any] | None = None
    traces = []
    try:
        async with timeout(seconds):
            while True:
                answer = messages.ExportAnswer.model_validate(
                    await requester.ask(
                        _EXCHANGES[name],
                        messages.EXPORT_REQUEST,
                        messages.EXPORT_REQUEST,
                        messages.export_request(subject, after),
                        timeout=seconds,
                    )
                )
                take(answer.records)
                traces += [answer.trace] if answer.trace else []
                if answer.next is None:
                    return traces, True
                after = answer.next
    except (TimeoutError, NoReply, ValidationError) as error:
        log.warning("export.incomplete", service=name, error=type(error).__name__)
        return traces, False
