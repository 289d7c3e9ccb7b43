"""Gateway: its speed beside what people put in front of a service, and what it holds."""

from bench.gateway import cache, chat, flood, loops, proxy, workers

TITLE = "Gateway"
PARTS = (proxy.PART, loops.PART, workers.PART, chat.PART, cache.PART, flood.PART)
