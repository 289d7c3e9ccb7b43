"""Both event loops: uvloop's, on which the services run, and asyncio's own."""

import asyncio

import uvloop

BOTH = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
