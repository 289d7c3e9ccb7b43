"""Metrics whose help and labels are in the .toml beside their module."""

from collections.abc import Sequence
from typing import Any, Literal

from prometheus_client import Counter, Gauge, Histogram

from libs.common import beside

Mode = Literal["all", "livesum", "livemax", "livemin"]


class Metrics:
    def __init__(self, module: str) -> None:
        self._said: dict[str, dict[str, Any]] = beside.toml(module)

    def _of(self, name: str) -> tuple[str, str, Sequence[str]]:
        said = self._said[name]
        return name, said["help"], said.get("labels", ())

    def counter(self, name: str) -> Counter:
        return Counter(*self._of(name))

    def gauge(self, name: str, mode: Mode = "all") -> Gauge:
        """:param mode: how the values of several processes of a host become one"""
        return Gauge(*self._of(name), multiprocess_mode=mode)

    def histogram(self, name: str, *buckets: float) -> Histogram:
        return Histogram(*self._of(name), buckets=buckets or Histogram.DEFAULT_BUCKETS)


SHARED = Metrics(__file__)
"""Those that several services have."""
