"""Monday.com: the GraphQL mutation create_item. Its errors arrive inside a 200."""

import json
from dataclasses import replace
from typing import Any

from services.alerts.alert import Claimed, Kind, Outcome, Reason
from services.alerts.channels.answers import MAX_WAIT, text_of
from services.alerts.channels.network import Network
from services.alerts.channels.post import Answer, Poster
from services.alerts.config import MondayTarget
from services.alerts.templates import Templates

API_VERSION = "2025-10"
MUTATION = (
    "mutation ($board: ID!, $name: String!, $values: JSON!) "
    "{ create_item (board_id: $board, item_name: $name, column_values: $values) { id } }"
)
_UNAUTHORIZED = ("unauth", "notauth", "permission", "forbidden")
_BUSY = ("complexity", "rate", "concurrency", "limit")
_BAD = ("invalid", "columnvalue", "parse", "argument", "notfound", "itemname", "correctedvalue")


class Monday:
    def __init__(
        self, name: str, target: MondayTarget, templates: Templates, network: Network
    ) -> None:
        self._name = name
        self._target = target
        self._templates = templates
        self._poster = Poster(target, target.url, network)

    async def send(self, job: Claimed) -> Outcome:
        item = self._item(job)
        body = {
            "query": MUTATION,
            "variables": {
                "board": self._target.board,
                "name": item["item_name"],
                "values": json.dumps(item.get("column_values", {}), ensure_ascii=False),
            },
        }
        headers = {
            "Authorization": self._target.token.get_secret_value(),
            "API-Version": API_VERSION,
        }
        answer = await self._poster.post(json.dumps(body).encode(), headers)
        return read(answer)

    def _item(self, job: Claimed) -> dict[str, Any]:
        rendered = self._templates.render(self._name, job)
        if rendered is None:
            return {"item_name": text_of(job.event_type, job.payload)[:255]}
        item: dict[str, Any] = json.loads(rendered)
        return item

    async def close(self) -> None:
        await self._poster.close()


def read(answer: Answer) -> Outcome:
    """Only an item's id is success; an error's code says whether another try makes sense."""
    outcome = answer.outcome
    if outcome.kind is not Kind.DELIVERED:
        return outcome
    try:
        data = json.loads(answer.body)
        errors = data.get("errors") or ([data] if "error_code" in data else [])
        if not errors and data["data"]["create_item"]["id"]:
            return outcome
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        errors = []
    first = errors[0] if isinstance(errors, list) and errors else {}
    details = first.get("extensions") if isinstance(first, dict) else None
    details = details if isinstance(details, dict) else {}
    code = str(details.get("code") or (isinstance(first, dict) and first.get("error_code")) or "")
    code = code.lower().replace("_", "")
    wait = details.get("retry_in_seconds")
    if any(word in code for word in _BUSY) and isinstance(wait, int | float) and wait > 0:
        return replace(
            outcome,
            kind=Kind.LATER,
            reason=Reason.RATE_LIMITED,
            retry_after=float(min(wait, MAX_WAIT)),
        )
    if any(word in code for word in _UNAUTHORIZED):
        return replace(outcome, kind=Kind.NEVER, reason=Reason.UNAUTHORIZED)
    if any(word in code for word in _BAD):
        return replace(outcome, kind=Kind.NEVER, reason=Reason.BAD_PAYLOAD)
    return replace(outcome, kind=Kind.FAILED, reason=Reason.BAD_ANSWER)
