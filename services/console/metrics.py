"""Every metric of the console; metrics.toml says what each counts."""

from libs.common.process.metrics import Metrics

_metrics = Metrics(__file__)
KEY_CHANGES = _metrics.counter("console_key_changes_total")
KEYS_BEHIND = _metrics.gauge("console_keys_behind")
STREAMS = _metrics.gauge("console_streams")
LOGINS = _metrics.counter("console_logins_total")
