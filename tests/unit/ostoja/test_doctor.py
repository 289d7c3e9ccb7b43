"""What `ostoja doctor` finds without any server: keys, the file they are in, a mail, a clock."""

from pathlib import Path
from typing import Any

import pytest

from deploy.local.environment import GENERATED
from ostoja.doctor import clock, mail, secrets
from ostoja.doctor.deployment import Deployment
from ostoja.doctor.finding import Finding, Verdict

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
        if each.verdict is not Verdict.OK
    ]


def test_generated_keys_in_a_private_file_are_well(env_file: Path) -> None:
    assert found(env_file) == []


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666])
def test_a_file_that_everybody_reads_is_found(env_file: Path, mode: int) -> None:
    env_file.chmod(mode)

    (finding,) = found(env_file)

    assert finding.verdict is Verdict.WRONG
    assert finding.do == f"chmod 600 {env_file}"


def test_a_file_that_is_elsewhere_is_for_a_person_to_look_at(tmp_path: Path) -> None:
    (finding,) = found(tmp_path / ".env")

    assert finding.verdict is Verdict.UNKNOWN


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
def test_a_key_that_is_none_is_found_and_not_told(
    env_file: Path, changes: dict[str, str], said: str
) -> None:
    (finding,) = found(env_file, **changes)

    assert finding.verdict is Verdict.WRONG
    assert said in finding.found
    told = finding.found + finding.do
    assert not any(value in told for value in changes.values() if len(value) > 8)


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


def test_a_signature_that_covers_both_headers_is_well() -> None:
    finding = of_mail("relay", mailed())["DKIM"]

    assert finding.verdict is Verdict.OK


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
def test_a_signature_that_covers_too_little_is_found(message: bytes, said: str) -> None:
    finding = of_mail("relay", message)["DKIM"]

    assert finding.verdict is Verdict.WRONG
    assert said in finding.found


def test_without_a_mail_the_relays_signature_is_for_a_person_to_look_at() -> None:
    relay, sandbox = of_mail("relay", None)["DKIM"], of_mail("", None)["DKIM"]

    assert (relay.verdict, sandbox.verdict) == (Verdict.UNKNOWN, Verdict.OK)
    assert "h= of DKIM-Signature" in relay.do


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(
    "address",
    [
        "ops@example.com", "Ops <OPS@Mail.Example.NET>", "ops@x.invalid", "ops@test",
        "ops@firma.pl, ops@example.org",
    ],
)  # fmt: skip
def test_an_address_of_nobody_s_is_found_where_mail_leaves(name: str, address: str) -> None:
    finding = of_mail("relay", None, **{name: address})["addresses"]

    assert finding.verdict is Verdict.WRONG
    assert f"{name} is {address}" in finding.found
    assert f"set {name} in .env" in finding.do


@pytest.mark.parametrize("address", ["ops@firma.pl", "ops@example.com.pl", "ops@notexample.com"])
def test_an_address_of_somebody_s_is_well(address: str) -> None:
    finding = of_mail("relay", None, ESCALATION_EMAIL=address)["addresses"]

    assert finding.verdict is Verdict.OK


@pytest.mark.parametrize("host", ["", "mailpit", "sandbox"])
def test_where_no_mail_leaves_the_addresses_of_the_example_do(host: str) -> None:
    found = of_mail(host, None, ESCALATION_EMAIL="ops@example.com")

    assert "addresses" not in found
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}


@pytest.mark.parametrize(
    ("there", "verdict", "said"),
    [
        (1000.5, Verdict.OK, "agrees"),
        (1002.9, Verdict.OK, "agrees"),
        (1063.0, Verdict.WRONG, "62 s ahead of ours"),
        (940.0, Verdict.WRONG, "60 s behind ours"),
    ],
)
def test_a_clock_that_is_apart_is_found(there: float, verdict: Verdict, said: str) -> None:
    finding = clock.judged("PostgreSQL", there, before=1000.0, after=1001.0)

    assert finding.verdict is verdict
    assert said in finding.found


def test_a_date_in_whole_seconds_is_not_blamed_for_what_it_leaves_out() -> None:
    there = clock.of_header("Wed, 25 Nov 2026 23:00:00 GMT")

    finding = clock.judged("RabbitMQ", there, there + 2.9, there + 2.95, exact_to=1.0)

    assert finding.verdict is Verdict.OK
