"""Gateway: its speed beside what people put in front of a service, and what it holds."""

from bench.gateway import cache, chat, flood, proxy, workers

TITLE = "Gateway"
PARTS = (proxy.PART, workers.PART, chat.PART, cache.PART, flood.PART)
