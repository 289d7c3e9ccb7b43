"""Gateway: its speed compared with other proxies, and its memory."""

from bench.gateway import cache, chat, flood, loops, proxy, workers

TITLE = "Gateway"
PARTS = (proxy.PART, loops.PART, workers.PART, chat.PART, cache.PART, flood.PART)
