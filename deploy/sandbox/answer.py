"""The answer of a simulated provider, and strict reading of what it is asked."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from libs.common.http.application import Problem, faults

M = TypeVar("M", bound=BaseModel)


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


def asked(request: web.Request, model: type[M]) -> M:
    """:raises Problem: names each parameter that is unknown or out of range"""
    try:
        return model.model_validate_strings(dict(request.query))
    except ValidationError as error:
        raise Problem(422, errors=faults(error, "query")) from None
