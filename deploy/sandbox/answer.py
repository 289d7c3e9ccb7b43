"""The answer of a simulated provider."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    accepted: bool
    content_type: str = "application/json"
    keep: Callable[[], None] = lambda: None
    """Run after the message was accepted."""


Provider = Callable[[Mapping[str, str], bytes], Answer]


def json_object(body: Any) -> dict[str, Any] | None:
    try:
        data = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
