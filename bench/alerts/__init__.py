from bench.alerts.drain import DRAIN

TITLE = "Alerts"
PARTS = (DRAIN,)
