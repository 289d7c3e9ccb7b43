"""Monday.com: an item per alert, or per lead, over GraphQL. Its errors arrive inside a 200.

An item with a `key` (a column and a value that identify it) is searched for first: a later alert
changes it, and a delivery repeated after a lost response creates no second one. Its `as_of` (a
column and a time) keeps an older alert that is late from overwriting a newer one. No state is kept
here: two deliveries with one key at the same moment may still create two items.
"""

import json
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from services.alerts.channels.channel import Secret, Url
from services.alerts.channels.post import HttpChannel, HttpTarget, Response
from services.alerts.channels.responses import said
from services.alerts.channels.templates import text_of
from services.alerts.rules.delivery import MAX_PAUSE_SECONDS, Claimed, Kind, Outcome, Reason

API_VERSION = "2025-10"
MUTATION = (
    "mutation ($board: ID!, $name: String!, $values: JSON!) "
    "{ create_item (board_id: $board, item_name: $name, column_values: $values) { id } }"
)
FIND = (
    "query ($board: ID!, $columns: [ItemsPageByColumnValuesQuery!], $read: [String!]) "
    "{ items_page_by_column_values (board_id: $board, columns: $columns, limit: 1) "
    "{ items { id column_values (ids: $read) { id text } } } }"
)
CHANGE = (
    "mutation ($board: ID!, $item: ID!, $values: JSON!) "
    "{ change_multiple_column_values "
    "(board_id: $board, item_id: $item, column_values: $values) { id } }"
)
_BUSY = ("complexity", "rate", "concurrency", "limit")
_REASONS = {
    ("unauth", "notauth", "permission", "forbidden", "accessdenied", "=401", "=403"):
        Reason.UNAUTHORIZED,
    ("boardid",): Reason.GONE,  # the board is a setting, no part of an alert
    ("invalid", "columnvalue", "parse", "argument", "notfound", "itemname", "correctedvalue"):
        Reason.BAD_PAYLOAD,
}  # fmt: skip


class MondayTarget(HttpTarget):
    read_by_people = False
    identity = ("url", "token", "board")

    channel: Literal["monday"]
    url: Url
    token: Secret
    board: str = Field(pattern=r"^[0-9]{1,20}$")


class Monday(HttpChannel[MondayTarget], section=MondayTarget):
    async def send(self, job: Claimed) -> Outcome:
        item, until = self._item(job), self._end()
        columns, as_of = item.get("column_values", {}), item.get("as_of", {})
        if key := item.get("key"):
            found = await self._ask(until, FIND, columns=_columns(key), read=list(as_of))
            outcome = read(found)
            if outcome.kind is not Kind.DELIVERED:
                return outcome
            if known := _first(found):
                if _is_newer(known, as_of):
                    return outcome
                columns = {"name": item["item_name"], **columns}
                return read(await self._ask(until, CHANGE, item=known["id"], values=_json(columns)))
        name, values = item["item_name"], _json(columns)
        return read(await self._ask(until, MUTATION, name=name, values=values))

    async def _ask(self, until: float, query: str, **variables: Any) -> Response:
        body = {"query": query, "variables": {"board": self._target.board, **variables}}
        headers = {
            "Authorization": self._target.token.get_secret_value(),
            "API-Version": API_VERSION,
        }
        return await self._poster.post(json.dumps(body).encode(), headers, until)

    def _item(self, job: Claimed) -> dict[str, Any]:
        rendered = self._templates.render(self._name, job)
        if rendered is None:
            return {"item_name": text_of(job)[:255]}
        item: dict[str, Any] = json.loads(rendered)
        return item


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _columns(key: dict[str, str]) -> list[dict[str, Any]]:
    return [{"column_id": column, "column_values": [value]} for column, value in key.items()]


def _first(found: Response) -> dict[str, Any] | None:
    items = json.loads(found.body)["data"]["items_page_by_column_values"]["items"]
    return items[0] if items else None


def _is_newer(known: dict[str, Any], as_of: dict[str, str]) -> bool:
    texts = {column["id"]: column["text"] or "" for column in known["column_values"]}
    return any(texts.get(column, "") >= time for column, time in as_of.items())


def _is_whole(answered: dict[str, Any]) -> bool:
    if "items" not in answered:
        return bool(answered["id"])
    return all(
        item["id"] and all({"id", "text"} <= column.keys() for column in item["column_values"])
        for item in answered["items"]
    )


def read(answer: Response) -> Outcome:
    """Classify a response: success needs an item's id or a list of items.

    The code of an error tells whether a retry makes sense.
    """
    outcome = answer.outcome
    if outcome.kind is not Kind.DELIVERED:
        return outcome
    data = answer.data
    errors = data.get("errors") or ([data] if "error_code" in data else [])
    try:
        if not errors and _is_whole(*data["data"].values()):
            return outcome
    except (KeyError, TypeError, AttributeError):
        pass
    first = errors[0] if isinstance(errors, list) and errors else {}
    if isinstance(first, str):  # {"errors": ["Not Authenticated"]}
        first = {"error_code": first}
    details = first.get("extensions") if isinstance(first, dict) else None
    details = details if isinstance(details, dict) else {}
    code = str(details.get("code") or (isinstance(first, dict) and first.get("error_code")) or "")
    code = f"{code}={details.get('status_code')}".lower().replace("_", "").replace(" ", "")
    wait = details.get("retry_in_seconds")
    if any(word in code for word in _BUSY) and isinstance(wait, int | float) and wait > 0:
        return replace(
            outcome,
            kind=Kind.LATER,
            reason=Reason.RATE_LIMITED,
            retry_after=float(min(wait, MAX_PAUSE_SECONDS)),
        )
    known = (reason for words, reason in _REASONS.items() if any(each in code for each in words))
    return said(outcome, next(known, Reason.BAD_ANSWER))
