from bench.alerts.drain import DRAIN
from bench.alerts.memory import MEMORY

TITLE = "Alerts"
PARTS = (DRAIN, MEMORY)
