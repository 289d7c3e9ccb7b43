"""Both event loops: uvloop's, on which the services run, and asyncio's own."""

import asyncio
from collections.abc import Callable

import uvloop

Factories = dict[str, Callable[[], asyncio.AbstractEventLoop]]

BOTH: Factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
