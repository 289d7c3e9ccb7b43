"""What `ostoja doctor` finds without any server: keys, the file they are in, a mail, a clock."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ostoja
from deploy.check import ADDRESSES
from deploy.inspection import going_live as live
from deploy.inspection import keys
from deploy.up.environment import API_KEYS, EXAMPLE, EXAMPLE_CONFIG, EXPERT, GENERATED, parse
from libs.common import beside
from libs.common.process.finding import Finding
from ostoja import where
from ostoja.app import app
from ostoja.commands.deployment import check_received
from tests.unit.ostoja.conftest import Gateway, Run

TABLE = beside.toml(__file__, "doctor.toml")
LIVE, OURS = TABLE["live"], TABLE["ours"]


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.touch(mode=0o600)
    return path


def found(env_file: Path, **changes: str) -> list[Finding]:
    values = {name: make() for name, make in GENERATED.items()} | changes
    return [each for each in keys.findings(values, env_file) if each["status"] != "ok"]


def test_generated_keys_in_a_private_file_pass(env_file: Path) -> None:
    assert found(env_file) == []


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666])
def test_a_world_readable_env_file_is_reported(env_file: Path, mode: int) -> None:
    env_file.chmod(mode)

    (finding,) = found(env_file)

    assert finding["status"] == "wrong"
    assert finding["do"] == f"chmod 600 {env_file}"


def test_an_env_file_elsewhere_is_unknown(tmp_path: Path) -> None:
    (finding,) = found(tmp_path / ".env")

    assert finding["status"] == "unknown"


@pytest.mark.parametrize("row", TABLE["key"], ids=lambda row: row["said"])
def test_an_invalid_key_is_reported_and_not_shown(env_file: Path, row: dict[str, Any]) -> None:
    (finding,) = found(env_file, **row["changes"])

    assert finding["status"] == "wrong"
    assert row["said"] in finding["found"]
    output = finding["found"] + finding["do"]
    assert not any(value in output for value in row["changes"].values() if len(value) > 8)


def test_what_the_services_say_is_printed_once_and_who_gives_no_answer_is_named(
    run: Run, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, "has_deployment", lambda: False)
    trail = {"part": "trail", "status": "wrong", "found": "not append-only", "do": "REVOKE it"}
    late = {"status": "unhealthy", "detail": "followups did not answer in time"}
    parts = {"postgres": {"status": "healthy"}, "rabbitmq": {"status": "unhealthy"}}
    components = {
        "followups": late,
        "consent": {"status": "degraded", "components": parts},
        "alerts": {"status": "degraded", "components": {"postgres": {"status": "healthy"}}},
    }
    answer = {"status": "degraded", "components": components, "findings": [trail, trail]}
    gateway.answers = [(200, {"status": "healthy"}), (200, answer)]

    done = run("doctor", "--json")

    assert gateway.asked[1][1] == "/api/health/deep?findings=yes"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = {each["part"]: each for each in found if each["status"] == "wrong"}
    assert (len(found), set(wrong)) == (6, {"trail", *components})
    assert wrong["trail"] == trail
    assert "no answer: the gateway finds it unhealthy" in wrong["followups"]["found"]
    assert "make logs SERVICE=followups" in wrong["followups"]["do"]
    assert "rabbitmq is unavailable" in wrong["consent"]["found"]
    assert wrong["alerts"]["do"] == "ostoja breakers, ostoja stats"
    assert (done.exit_code, done.stderr) == (1, "ostoja: 4 problems\n")


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


def test_a_signature_that_covers_both_headers_passes() -> None:
    assert check_received(mailed()) == (
        "the signature of mail.example.com covers both headers",
        "",
    )


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
    found, do = check_received(message)

    assert said in found
    assert do


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "address",
    [
        "ops@example.com", "Ops <OPS@Mail.Example.NET>", "ops@x.invalid", "ops@test",
        "ops@firma.pl, ops@example.org",
    ],
)  # fmt: skip
def test_an_example_address_is_reported_with_a_real_relay(name: str, address: str) -> None:
    values = {**LIVE, **OURS, "SMTP_HOST": "relay", name: address}
    found = live.findings(values, Path(), live=False)
    (finding,) = [each for each in found if each["part"] == "addresses"]
    assert finding["status"] == "wrong"
    assert f"{name} is {address}" in finding["found"]
    assert f"set {name} in .env" in finding["do"]


def test_both_readers_of_env_read_alike() -> None:
    text = "A=1\n# B=2\n C = 'x y' \n\nD=\"q\"\nE='\nF=a=b\n"
    assert where.parse(text) == parse(text)
    assert [EXPERT, EXAMPLE] == where.DEFAULTS
    for file in where.DEFAULTS:
        example = file.read_text(encoding="utf-8")
        assert where.parse(example) == parse(example)


def going_live(folder: Path, *, asked: bool = False, **changes: str) -> list[Finding]:
    config = folder / "config"
    if not config.exists():
        shutil.copytree(EXAMPLE_CONFIG, config)
        for path in config.glob("*.toml"):
            text = path.read_text(encoding="utf-8").replace("ostoja-wnetrza.example", "firma.pl")
            text = re.sub(r'name = "(Jan|Maria|Ewa) ', r'name = "Our \1 ', text)
            text = text.replace("1234563218", "5252248481").replace(', "sandbox"', "")
            path.write_text(text.replace("Ostoja Wnętrza", "Firma"), encoding="utf-8")
    values = {**LIVE, **OURS, **changes}
    every = live.findings(values, folder / "config" / "alerts.toml", live=asked)
    return [each for each in every if each["part"] == "going live"]


def test_a_deployment_that_follows_the_page_may_go_live(tmp_path: Path) -> None:
    (finding,) = going_live(tmp_path)
    assert finding["status"] == "ok"


@pytest.mark.parametrize("row", TABLE["trial"], ids=lambda row: row["said"])
def test_trial_settings_are_reported_once_a_provider_is_real(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    (finding,) = going_live(tmp_path, **row["changes"])
    assert finding["status"] == "wrong"
    assert row["said"] in finding["found"]
    assert finding["do"]


def test_a_deployment_that_nobody_watches_from_elsewhere_is_mentioned(tmp_path: Path) -> None:
    (finding,) = going_live(tmp_path, HEARTBEAT_URL="")
    assert finding["status"] == "unknown"
    assert "HEARTBEAT_URL" in finding["do"]


@pytest.mark.parametrize("name", ["company.toml", "followups.toml", "forms.toml"])
def test_the_example_company_is_reported(tmp_path: Path, name: str) -> None:
    going_live(tmp_path)
    shutil.copy(EXAMPLE_CONFIG / name, tmp_path / "config" / name)
    (finding,) = going_live(tmp_path)
    assert finding["status"] == "wrong"
    assert f"config/{name} still has the example's" in finding["found"]


def test_the_people_of_the_example_are_reported(tmp_path: Path) -> None:
    going_live(tmp_path)
    shutil.copy(EXAMPLE_CONFIG / "alerts.toml", tmp_path / "config" / "alerts.toml")
    (finding,) = going_live(tmp_path)
    assert finding["status"] == "wrong"
    assert "still asks the example's Ewa Lis, Jan Kos, Maria Sowa" in finding["found"]


def test_a_chain_that_takes_longer_than_the_chat_promises_is_reported(tmp_path: Path) -> None:
    going_live(tmp_path)
    alerts = tmp_path / "config" / "alerts.toml"
    text = alerts.read_text(encoding="utf-8")
    longer = 'chain = ["...", { to = "email", person = "manager", wait = "3h" }]'
    alerts.write_text(f'{text}\n[answers."lead.submitted"]\n{longer}\n', "utf-8")
    (finding,) = going_live(tmp_path)
    assert "within 8:00:00" in finding["found"]
    assert "lead.submitted takes 13:00:00" in finding["found"]
    (tmp_path / "config/followups.toml").write_text('[lead]\nanswer_within = "2d"\n', "utf-8")
    (finding,) = going_live(tmp_path)
    assert finding["status"] == "ok"


def test_a_trial_is_checked_only_with_live(tmp_path: Path) -> None:
    trial: dict[str, Any] = dict.fromkeys(live.PROVIDERS.values(), "") | {"PUBLIC_BASE_URL": ""}
    (finding,) = going_live(tmp_path, **trial)
    assert finding["status"] == "ok"
    asked = going_live(tmp_path, asked=True, **trial)
    assert {each["status"] for each in asked} == {"wrong"}
    assert len(asked) == 2


@pytest.mark.parametrize("row", TABLE["dkim"])
def test_dkim_is_not_needed_only_in_a_trial(row: dict[str, Any]) -> None:
    values = LIVE | OURS | row["changes"]
    found = live.findings(values, EXAMPLE_CONFIG / "alerts.toml", live=False)
    assert [each["status"] for each in found if each["part"] == "DKIM"] == [row["status"]]


# `ostoja` installed alone, by pipx: no checkout, none of the services' packages.

ROOT = Path(__file__).parents[3]
NOT_THERE = ("deploy", "libs", "services", "psycopg2", "redis", "aio_pika", "yaml", "mcp")
BLOCKED = f"""
import sys
for name in {NOT_THERE}: sys.modules[name] = None
from ostoja.app import main
main()
"""


def installed(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    package = folder / "site" / "ostoja"
    if not package.exists():
        package.parent.mkdir()
        package.symlink_to(ROOT / "ostoja")
    return subprocess.run(
        [sys.executable, "-P", "-c", BLOCKED, *words],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "site"), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_is_the_project_s(tmp_path: Path) -> None:
    done = installed(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"ostoja {ostoja.__version__}\n"), done.stderr
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ostoja.__version__"}
    assert f"version: {ostoja.__version__}\n" in (
        ROOT / "services" / "gateway" / "openapi.yaml"
    ).read_text(encoding="utf-8")


def test_the_key_comes_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ADMIN_API_KEY='the key'\nGATEWAY_PORT=1\n")
    done = installed(tmp_path, "stats")
    assert done.returncode == 3, done.stderr
    assert "http://127.0.0.1:1 does not answer" in done.stderr


def test_check_says_where_to_run_it(tmp_path: Path) -> None:
    done = installed(tmp_path, "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "in its checkout, or in the container" in done.stderr


def test_mcp_says_how_to_install_what_it_needs(tmp_path: Path) -> None:
    done = installed(tmp_path, "mcp")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pipx install 'ostoja[mcp]'" in done.stderr


def test_doctor_asks_the_gateway_and_says_where_it_sees_more(tmp_path: Path) -> None:
    done = installed(tmp_path, "--json", "--url", "http://127.0.0.1:1", "doctor")
    elsewhere, gateway = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (1, "ostoja: 1 problem\n")
    assert (elsewhere["part"], elsewhere["status"]) == (".env", "unknown")
    assert "in its checkout, or in the container" in elsewhere["do"]
    assert (gateway["part"], gateway["status"]) == ("gateway", "wrong")


@pytest.mark.parametrize("command", ["check", "backup"])
def test_so_does_the_container_that_has_two_keys_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(where, "CHECKOUT", tmp_path)
    monkeypatch.setattr(os, "environ", dict.fromkeys(API_KEYS, "a key of sixteen letters"))
    done = CliRunner().invoke(app, [command])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "docker compose run --rm inspector doctor" in done.stderr
