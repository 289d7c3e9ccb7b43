"""What only an administrator sees, for `ostoja doctor`: .env, config/, RabbitMQ's accounts."""

from functools import partial

from libs.common import beside
from libs.common.process import finding

SAID: dict[str, dict[str, str]] = beside.toml(__file__, "findings.toml")
say = partial(finding.say, of=SAID)
