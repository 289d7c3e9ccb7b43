"""Settings that suit the sandbox but not production; see docs/going-live.md."""

import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from deploy.check import ADDRESSES, RESERVED, examples, is_production
from deploy.up.environment import EXAMPLE_CONFIG
from libs.common.process.finding import RESTART, Finding, ok, unknown, wrong

PROVIDERS = {
    "slack": "SLACK_WEBHOOK_URL",
    "monday": "MONDAY_API_URL",
    "sms": "SMS_API_URL",
    "email": "SMTP_HOST",
    "webhook": "WEBHOOK_URL",
}
PAGE = "docs/going-live.md"


SANDBOX = {"", "sandbox", "mailpit"}
"""Hosts of the sandbox: the default, and in compose."""
SIGN = "let the relay sign From, List-Unsubscribe and List-Unsubscribe-Post (h= of DKIM-Signature)"


def findings(values: Mapping[str, str], alerts: Path, *, live: bool) -> Iterator[Finding]:
    """:param alerts: alerts.toml, beside the other files of the configuration
    :param live: check a trial, too, to see what is left to do
    """
    yield from _mail(values)
    real = [name for name, variable in PROVIDERS.items() if values[variable] not in SANDBOX]
    if not real and not live:
        yield ok("going live", "not checked with the sandbox; use ostoja doctor --live")
        return
    faults = [
        *_public_url(values),
        *_quiet_hours(values),
        *_examples(values, alerts.parent),
        *_watched(values),
        *_example_people(alerts),
        *_still_sandbox(alerts, real),
    ]
    yield from faults or [
        ok("going live", f"everything in {PAGE} that can be checked from here is done")
    ]


def _mail(values: Mapping[str, str]) -> Iterator[Finding]:
    real = values["SMTP_HOST"] not in SANDBOX
    if real:
        reserved = [name for name, _ in examples(values, Path()) if name in ADDRESSES]
        if reserved:
            yield wrong(
                "addresses",
                f"still an example: {', '.join(f'{name} is {values[name]}' for name in reserved)}",
                f"set {', '.join(reserved)} in .env, then {RESTART}; relays reject mail to or from "
                "an example address permanently",
            )
        else:
            yield ok("addresses", f"{', '.join(ADDRESSES)} are set")
    if real or is_production(values):
        yield unknown(
            "DKIM",
            "the relay adds the signature, so it cannot be seen from here",
            f"{SIGN}; to check: make send-test TO=you@example.com, save the received mail, "
            "ostoja doctor --mail FILE",
        )
    else:
        yield ok("DKIM", "not needed: mail goes to the sandbox")


def _public_url(values: Mapping[str, str]) -> Iterator[Finding]:
    parts = urlsplit(values["PUBLIC_BASE_URL"])
    host = parts.hostname or ""
    if not host or _is_private(host) or RESERVED.fullmatch(host):
        yield wrong(
            "going live",
            f"links in mails lead to {host or 'this machine'}, which recipients cannot reach",
            f"set PUBLIC_BASE_URL in .env to the public https address, then {RESTART}",
        )
    elif parts.scheme != "https":
        yield wrong(
            "going live",
            "links in mails are http: mailbox providers then show no one-click unsubscribe",
            f"put HTTPS in front ({PAGE}), then PUBLIC_BASE_URL=https://{host} in .env",
        )
    elif not values["TRUSTED_PROXIES"]:
        yield wrong(
            "going live",
            "HTTPS ends at a proxy and TRUSTED_PROXIES is empty: all visitors share one limit, and "
            "the trail records the proxy's address",
            f"set TRUSTED_PROXIES in .env to the address the proxy comes from ({PAGE})",
        )


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host  # localhost, or a name of this network


def _quiet_hours(values: Mapping[str, str]) -> Iterator[Finding]:
    if values["FOLLOWUP_QUIET_HOURS"].lower() in {"off", "false", "0", "no", "f", "n"}:
        yield wrong(
            "going live",
            "follow-ups are also sent at night, on Sundays and on holidays",
            f"set FOLLOWUP_QUIET_HOURS=on in .env, then {RESTART}",
        )


def _watched(values: Mapping[str, str]) -> Iterator[Finding]:
    if not values["HEARTBEAT_URL"]:
        yield unknown(
            "going live",
            "nobody is told if this machine, or all of Ostoja, is gone",
            f"set HEARTBEAT_URL in .env to the ping URL of a monitor elsewhere ({PAGE})",
        )


def _examples(values: Mapping[str, str], folder: Path) -> Iterator[Finding]:
    for name, fault in examples(values, folder):
        if name not in ADDRESSES:  # see _mail
            yield wrong("going live", f"{name} {fault}", f"change it, then {RESTART}")


def _example_people(config: Path) -> Iterator[Finding]:
    try:
        own, shipped = (
            tomllib.loads(path.read_text(encoding="utf-8")).get("people", {})
            for path in (config, EXAMPLE_CONFIG / "alerts.toml")
        )
        names = [each["name"] for key, each in own.items() if each == shipped.get(key)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # reported as a configuration fault
    if names:
        yield wrong(
            "going live",
            f"config/alerts.toml still asks the example's {', '.join(names)}",
            f"write your own [people] there and their shifts in rota-sales.ics, then {RESTART}",
        )


def _still_sandbox(config: Path, real: list[str]) -> Iterator[Finding]:
    try:
        targets = tomllib.loads(config.read_text(encoding="utf-8"))["targets"]
    except (OSError, ValueError, KeyError):
        return
    left = [name for name in PROVIDERS if name in targets and name not in real]
    if left:
        variables = ", ".join(PROVIDERS[name] for name in left)
        yield wrong(
            "going live",
            f"still the sandbox: {', '.join(left)}; their alerts reach no one",
            f"set {variables} in .env; or delete the target and its routes from config/alerts.toml",
        )
