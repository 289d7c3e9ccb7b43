"""What the other services hold on a person, asked for over the broker, page by page."""

import asyncio
from asyncio import timeout
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from libs.common import logs
from libs.common.requests import NoAnswer, Requester
from services.consent import messages
from services.consent.topology import ALERTS, FOLLOWUPS_COMMANDS

log = logs.get_logger(__name__)

_EXCHANGES = {"alerts": ALERTS, "followups": FOLLOWUPS_COMMANDS}

Records = dict[str, list[dict[str, Any]]]


async def gather(
    requester: Requester, address: str, seconds: float
) -> tuple[Mapping[str, Records], list[str]]:
    """Ask every holder at once.

    :returns: the records by service, and the services that did not tell all in time
    """
    found: dict[str, Records] = {name: {} for name in _EXCHANGES}

    def keep(name: str, records: Records) -> None:
        for kind, each in records.items():
            found[name].setdefault(kind, []).extend(each)

    return found, await _ask_all(requester, address, seconds, keep)


async def addresses(
    requester: Requester, seconds: float, look: Callable[[Records], None]
) -> list[str]:
    """Look at all addresses that the other services hold, page by page.

    :returns: the services that did not tell all in time
    """
    return await _ask_all(requester, None, seconds, lambda _, records: look(records))


async def _ask_all(
    requester: Requester,
    address: str | None,
    seconds: float,
    take: Callable[[str, Records], None],
) -> list[str]:
    whole = await asyncio.gather(
        *(_ask(requester, name, address, seconds, take) for name in _EXCHANGES)
    )
    return [name for name, complete in zip(_EXCHANGES, whole, strict=True) if not complete]


async def _ask(
    requester: Requester,
    name: str,
    address: str | None,
    seconds: float,
    take: Callable[[str, Records], None],
) -> bool:
    after: list[Any] | None = None
    try:
        async with timeout(seconds):
            while True:
                answer = messages.ExportAnswer.model_validate(
                    await requester.ask(
                        _EXCHANGES[name],
                        messages.EXPORT_REQUEST,
                        messages.EXPORT_REQUEST,
                        messages.export_request(address, after),
                        timeout=seconds,
                    )
                )
                take(name, answer.records)
                if answer.next is None:
                    return True
                after = answer.next
    except (TimeoutError, NoAnswer, ValidationError) as error:
        log.warning("export.incomplete", service=name, error=type(error).__name__)
        return False
