"""What `ostoja doctor` finds without any server: keys, the file they are in, a mail, a clock."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from deploy.up.environment import EXAMPLE, EXAMPLE_CONFIG, GENERATED, parse
from ostoja.doctor import clock, configuration, live, mail, secrets, web
from ostoja.doctor.deployment import Deployment
from ostoja.doctor.finding import Finding, Status

OTHERS = GENERATED["TOKEN_KEYS"]()
NEWER = GENERATED["CONSENT_MASTER_KEYS"]().replace("k1:", "k2:")


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.touch(mode=0o600)
    return path


def found(env_file: Path, **changes: str) -> list[Finding]:
    values = {name: make() for name, make in GENERATED.items()} | changes
    return [
        each
        for each in secrets.check(Deployment(values, "http://gateway", env_file))
        if each.status is not Status.OK
    ]


def test_generated_keys_in_a_private_file_pass(env_file: Path) -> None:
    assert found(env_file) == []


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666])
def test_a_world_readable_env_file_is_reported(env_file: Path, mode: int) -> None:
    env_file.chmod(mode)

    (finding,) = found(env_file)

    assert finding.status is Status.WRONG
    assert finding.do == f"chmod 600 {env_file}"


def test_an_env_file_elsewhere_is_unknown(tmp_path: Path) -> None:
    (finding,) = found(tmp_path / ".env")

    assert finding.status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ADMIN_API_KEY": ""}, "not set: ADMIN_API_KEY"),
        ({"ADMIN_API_KEY": "Zx4-kQ9_wPb2"}, "ADMIN_API_KEY is easily guessed"),
        ({"REDIS_PASSWORD": "changemechangeme"}, "REDIS_PASSWORD is easily guessed"),
        ({"TOKEN_KEYS": "k1:none"}, "TOKEN_KEYS: key 'k1'"),
        ({"CONSENT_HASH_KEY": "ünd so wéiter, nicht base64"}, "CONSENT_HASH_KEY is not base64"),
        (
            {"ADMIN_API_KEY": "q8Z-one-and-the-same", "SERVICE_API_KEY": "q8Z-one-and-the-same"},
            "ADMIN_API_KEY and SERVICE_API_KEY",
        ),
        (
            {"TOKEN_KEYS": OTHERS, "CONSENT_MASTER_KEYS": f"{NEWER},{OTHERS}"},
            "TOKEN_KEYS and CONSENT_MASTER_KEYS",
        ),
    ],
)
def test_an_invalid_key_is_reported_and_not_shown(
    env_file: Path, changes: dict[str, str], said: str
) -> None:
    (finding,) = found(env_file, **changes)

    assert finding.status is Status.WRONG
    assert said in finding.found
    output = finding.found + finding.do
    assert not any(value in output for value in changes.values() if len(value) > 8)


def test_a_held_target_is_reported_with_what_to_correct() -> None:
    held = {"paused": "refused us: 401", "open_since": "2026-11-30T10:00:00+00:00"}
    breakers = {
        "slack": held | {"settings": ["SLACK_WEBHOOK_URL"]},
        "monday": {"paused": True, "open_since": None, "settings": []},
        "sms": {"paused": False},
    }
    (finding,) = web._held({"circuit_breakers": breakers})
    assert (finding.part, finding.status) == ("target slack", Status.WRONG)
    assert "refused us: 401, since 2026-11-30T10:00:00" in finding.found
    assert "SLACK_WEBHOOK_URL" in finding.do
    nothing: list[Any] = [None, {}, [], {"circuit_breakers": {}}]
    assert [list(web._held(health)) for health in nothing] == [[]] * 4


SIGNED = (
    "v=1; a=rsa-sha256; d=example.com; s=x;\r\n h=From:To:List-Unsubscribe:"
    "\r\n List-Unsubscribe-Post; b=abc="
)


def mailed(signature: str | None = SIGNED, **changes: str | None) -> bytes:
    headers: dict[str, Any] = {
        "From": "Ostoja <ostoja@mail.example.com>",
        "List-Unsubscribe": "<https://example.com/unsubscribe?token=x>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "DKIM-Signature": signature,
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\nhello\r\n").encode()


OURS = {
    "ESCALATION_EMAIL": "ops@firma.pl", "STAFF_EMAIL": "biuro@firma.pl",
    "MAIL_FROM": "Firma <biuro@firma.pl>",
}  # fmt: skip


def of_mail(host: str, message: bytes | None, **changes: str) -> dict[str, Finding]:
    found = mail.check({"SMTP_HOST": host, **OURS, **changes}, message)
    return {finding.part: finding for finding in found}


def test_a_signature_that_covers_both_headers_passes() -> None:
    finding = of_mail("relay", mailed())["DKIM"]

    assert finding.status is Status.OK


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (mailed(None), "no DKIM-Signature"),
        (mailed(SIGNED.replace("\r\n List-Unsubscribe-Post", "Subject")), "list-unsubscribe-post"),
        (mailed(SIGNED.replace("d=example.com", "d=relay.example")), "not by mail.example.com"),
        (mailed(SIGNED.replace("d=example.com", "d=ample.com")), "not by mail.example.com"),
        (mailed(List_Unsubscribe_Post=None), "the mail has no list-unsubscribe-post"),
    ],
)
def test_a_signature_that_covers_too_little_is_reported(message: bytes, said: str) -> None:
    finding = of_mail("relay", message)["DKIM"]

    assert finding.status is Status.WRONG
    assert said in finding.found


def test_the_relay_s_signature_is_unknown_without_a_mail() -> None:
    relay, sandbox = of_mail("relay", None)["DKIM"], of_mail("", None)["DKIM"]

    assert (relay.status, sandbox.status) == (Status.UNKNOWN, Status.OK)
    assert "h= of DKIM-Signature" in relay.do


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(
    "address",
    [
        "ops@example.com", "Ops <OPS@Mail.Example.NET>", "ops@x.invalid", "ops@test",
        "ops@firma.pl, ops@example.org",
    ],
)  # fmt: skip
def test_an_example_address_is_reported_with_a_real_relay(name: str, address: str) -> None:
    finding = of_mail("relay", None, **{name: address})["addresses"]

    assert finding.status is Status.WRONG
    assert f"{name} is {address}" in finding.found
    assert f"set {name} in .env" in finding.do


@pytest.mark.parametrize("address", ["ops@firma.pl", "ops@example.com.pl", "ops@notexample.com"])
def test_a_real_address_passes(address: str) -> None:
    finding = of_mail("relay", None, ESCALATION_EMAIL=address)["addresses"]

    assert finding.status is Status.OK


@pytest.mark.parametrize("host", ["", "mailpit", "sandbox"])
def test_example_addresses_pass_with_the_sandbox(host: str) -> None:
    found = of_mail(host, None, ESCALATION_EMAIL="ops@example.com")

    assert "addresses" not in found
    assert {finding.status for finding in found.values()} == {Status.OK}


@pytest.mark.parametrize(
    ("there", "status", "said"),
    [
        (1000.5, Status.OK, "agrees"),
        (1002.9, Status.OK, "agrees"),
        (1063.0, Status.WRONG, "62 s ahead of this machine's"),
        (940.0, Status.WRONG, "60 s behind this machine's"),
    ],
)
def test_a_clock_that_differs_is_reported(there: float, status: Status, said: str) -> None:
    finding = clock.judged("PostgreSQL", there, before=1000.0, after=1001.0)

    assert finding.status is status
    assert said in finding.found


def test_a_date_in_whole_seconds_is_compared_by_its_resolution() -> None:
    there = clock.of_header("Wed, 25 Nov 2026 23:00:00 GMT")

    finding = clock.judged("RabbitMQ", there, there + 2.9, there + 2.95, exact_to=1.0)

    assert finding.status is Status.OK


LIVE = {
    "PUBLIC_BASE_URL": "https://ostoja.firma.pl",
    "TRUSTED_PROXIES": "127.0.0.1/32",
    "FOLLOWUP_QUIET_HOURS": "on",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/x",
    "MONDAY_API_URL": "https://api.monday.com/v2",
    "SMS_API_URL": "https://api.smsapi.pl",
    "SMTP_HOST": "smtp.firma.pl",
    "WEBHOOK_URL": "https://crm.firma.pl/hook",
    "HEARTBEAT_URL": "https://hc-ping.com/x",
    "ALERTS_CONFIG": "config/alerts.toml",
}


def going_live(folder: Path, *, asked: bool = False, **changes: str) -> list[Finding]:
    config = folder / "config"
    if not config.exists():
        shutil.copytree(EXAMPLE_CONFIG, config)
        for path in config.glob("*.toml"):
            text = path.read_text(encoding="utf-8").replace("ostoja-wnetrza.example", "firma.pl")
            text = re.sub(r'name = "(Jan|Maria|Ewa) ', r'name = "Our \1 ', text)
            text = text.replace("1234563218", "5252248481").replace("http://127.0.0.1:8090", "")
            path.write_text(text, encoding="utf-8")
    deployment = Deployment({**LIVE, **changes}, "http://gateway", folder / ".env")
    return list(live.check(deployment, live=asked))


def test_a_deployment_that_follows_the_page_may_go_live(tmp_path: Path) -> None:
    (finding,) = going_live(tmp_path)
    assert finding.status is Status.OK


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"PUBLIC_BASE_URL": ""}, "lead to this machine"),
        ({"PUBLIC_BASE_URL": "http://127.0.0.1:8080"}, "lead to 127.0.0.1"),
        ({"PUBLIC_BASE_URL": "https://192.168.1.5"}, "lead to 192.168.1.5"),
        ({"PUBLIC_BASE_URL": "https://localhost"}, "lead to localhost"),
        ({"PUBLIC_BASE_URL": "https://ostoja.example.com"}, "lead to ostoja.example.com"),
        ({"PUBLIC_BASE_URL": "http://ostoja.firma.pl"}, "one-click"),
        ({"TRUSTED_PROXIES": ""}, "all visitors share one limit"),
        ({"FOLLOWUP_QUIET_HOURS": "off"}, "at night"),
        ({"SMS_API_URL": "", "WEBHOOK_URL": ""}, "still the sandbox: sms, webhook"),
    ],
)
def test_trial_settings_are_reported_once_a_provider_is_real(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    (finding,) = going_live(tmp_path, **changes)
    assert finding.status is Status.WRONG
    assert said in finding.found
    assert finding.do


def test_a_deployment_that_nobody_watches_from_elsewhere_is_mentioned(tmp_path: Path) -> None:
    (finding,) = going_live(tmp_path, HEARTBEAT_URL="")
    assert finding.status is Status.UNKNOWN
    assert "HEARTBEAT_URL" in finding.do


@pytest.mark.parametrize("name", ["company.toml", "followups.toml", "forms.toml"])
def test_the_example_company_is_reported(tmp_path: Path, name: str) -> None:
    going_live(tmp_path)
    shutil.copy(EXAMPLE_CONFIG / name, tmp_path / "config" / name)
    (finding,) = going_live(tmp_path)
    assert finding.status is Status.WRONG
    assert f"config/{name} still has the example's" in finding.found


def test_the_people_of_the_example_are_reported(tmp_path: Path) -> None:
    going_live(tmp_path)
    shutil.copy(EXAMPLE_CONFIG / "alerts.toml", tmp_path / "config" / "alerts.toml")
    (finding,) = going_live(tmp_path)
    assert finding.status is Status.WRONG
    assert "still asks the example's Jan Kos, Maria Sowa, Ewa Lis" in finding.found


def test_a_trial_is_checked_only_with_live(tmp_path: Path) -> None:
    trial: dict[str, Any] = dict.fromkeys(live.PROVIDERS.values(), "") | {"PUBLIC_BASE_URL": ""}
    (finding,) = going_live(tmp_path, **trial)
    assert finding.status is Status.OK
    asked = going_live(tmp_path, asked=True, **trial)
    assert {each.status for each in asked} == {Status.WRONG}
    assert len(asked) == 2


def test_a_limit_that_an_older_version_wrote_is_reported(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "faults", lambda *_: [])
    values = parse(EXAMPLE.read_text(encoding="utf-8"))

    def told(limit: str) -> list[str]:
        deployment = Deployment(values | {"LOGIN_RATE_LIMIT": limit}, "http://gateway", env_file)
        findings = list(configuration.check(deployment))
        return [each.found for each in findings if each.status is Status.WRONG]

    assert told(values["LOGIN_RATE_LIMIT"]) == told("20 per minute") == []
    (found_,) = told("20 per 15 minutes")
    assert "an older version's default" in found_
