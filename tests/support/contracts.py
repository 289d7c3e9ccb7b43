"""tests/contracts: what services send each other, agreed by sender and reader."""

import json
from typing import Any

import pytest

from deploy.up.environment import ROOT

EXTRA = pytest.mark.parametrize("extra", [{}, {"version": 2, "more": {"a": []}}])
"""A reader takes a message with fields that it does not know."""


def golden(name: str) -> Any:
    return json.loads((ROOT / f"tests/contracts/{name}.json").read_text(encoding="utf-8"))
