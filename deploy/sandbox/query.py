"""Strict parsing of query strings."""

from typing import TypeVar

from aiohttp import web

from libs.common.http.application import Problem

D = TypeVar("D", int, None)


def only(request: web.Request, *names: str) -> None:
    unknown = sorted(set(request.query) - set(names))
    if unknown:
        raise Problem(422, errors=[(name, "unknown parameter") for name in unknown])


def number(request: web.Request, name: str, default: D, least: int, most: int) -> int | D:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and least <= int(text[:10]) <= most):
        raise Problem(422, errors=[(name, f"must be a whole number from {least} to {most}")])
    return int(text)
