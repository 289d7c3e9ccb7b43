"""Gateway: its speed beside what people put in front of a service, and what it holds."""

from bench.gateway import proxy, workers

TITLE = "Gateway"
PARTS = (proxy.PART, workers.PART)
