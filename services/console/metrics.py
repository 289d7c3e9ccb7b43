"""Every metric of the console, with its label values."""

from prometheus_client import Counter, Gauge

KEY_CHANGES = Counter("console_key_changes_total", "Changes of API keys.", ["act", "outcome"])
"""act: create | rotate | revoke; outcome: in_force (every gateway has it) | waiting"""

KEYS_BEHIND = Gauge(
    "console_keys_behind",
    "1: a gateway has keys that this database does not know; it was restored from a backup.",
)

STREAMS = Gauge("console_streams", "Pages that hear what has changed.")

LOGINS = Counter("console_logins_total", "Tries to log in.", ["outcome"])
"""done | refused"""
