"""What `make check` finds in .env and config/*.toml, before anything is started."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy import check
from deploy.up import environment
from deploy.up.environment import ROOT
from libs.common import beside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout's own files, as `make env` leaves them."""
    environment.ensure(tmp_path / ".env", data_exists=False, trying=True)
    environment.ensure_config(tmp_path / "config")
    return tmp_path


def found(folder: Path, *lines: str) -> list[str]:
    env_file = folder / ".env"
    with env_file.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    return check.faults(environment.load(env_file), env_file)


def test_make_env_writes_a_valid_file_that_a_shell_reads_equally(folder: Path) -> None:
    lines = ("SMTP_PASSWORD='a $b #c \"d\\e'", 'CHAT_RATE_LIMIT="10 per minute"')
    assert found(folder, *lines) == []
    env_file = folder / ".env"
    read = subprocess.run(
        ["sh", "-c", "set -a; . ./.env; env -0"],
        cwd=folder,
        env={},
        capture_output=True,
        check=True,
    ).stdout.decode()
    shells = dict(line.split("=", 1) for line in read.split("\0") if line)
    ours = environment.parse(env_file.read_text(encoding="utf-8"))
    assert {name: shells[name] for name in ours} == ours
    assert ours["SMTP_PASSWORD"] == 'a $b #c "d\\e'


INVALID: dict[str, str] = dict(beside.toml(__file__)["invalid"])


def test_each_invalid_line_of_env_is_named_without_secrets(folder: Path) -> None:
    first = len((folder / ".env").read_text(encoding="utf-8").splitlines()) + 1
    faults = found(folder, *INVALID)
    for number, told in enumerate(INVALID.values(), first):
        assert any(fault.startswith(f".env:{number}: {told}") for fault in faults), faults
    assert "hush" not in "".join(faults)


def test_unknown_settings_of_docker_targets_or_older_versions_are_no_typos(
    folder: Path,
) -> None:
    path = folder / "config" / "alerts.toml"
    text = path.read_text(encoding="utf-8").replace("SMS_TO", "SMS2_TO")
    path.write_text(text, encoding="utf-8")
    own = (
        "SMS2_TO=+48600000001",
        "COMPOSE_FILE=docker-compose.yml",
        "MY_OWN_THING=1",
        "INTERNAL_API_KEY=old",
    )
    assert found(folder, *own) == []


def test_make_env_needs_no_package() -> None:
    command = [sys.executable, "-S", "-m", "deploy.up", "env", "--help"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_the_faults_of_all_files_are_reported_together_and_once(folder: Path) -> None:
    for name, wrong in (
        ("alerts", "[targets.slack.breaker]\nfail_mx = 5\n"),
        ("followups", "[hours]\nweekend = false\n"),
    ):
        with (folder / "config" / f"{name}.toml").open("a", encoding="utf-8") as file:
            file.write(wrong)
    first, second = sorted(fault.split(": ", 1)[1] for fault in found(folder))
    assert first == "hours.weekend: is not known; did you mean weekends?"
    assert second == "targets.slack.breaker.fail_mx: is not known; did you mean fail_max?"


ON_CALL = """
[answers."slack_alert"]
asks = ["slack"]
within = "15m"
chain = [{ to = "sms", call = "night", wait = "10m" }]
[schedules.night]
file = "rota.ics"
otherwise = "anna"
[people.anna]
name = "Anna Nowak"
phone = { env = "PHONE_ANNA" }
"""


def test_a_schedule_that_cannot_be_read_is_named(folder: Path) -> None:
    path = folder / "config" / "alerts.toml"
    number = len(path.read_text(encoding="utf-8").splitlines()) + 7
    with path.open("a", encoding="utf-8") as file:
        file.write(ON_CALL)
    nowhere = "schedules.night.file: rota.ics: No such file or directory"
    assert found(folder, "PHONE_ANNA=+48600700800") == [f"config/alerts.toml:{number}: {nowhere}"]


def test_a_container_without_env_and_secrets_still_checks_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ROOT", folder)
    nowhere = folder / "nowhere"
    values = environment.load(nowhere)
    assert check.faults(values, nowhere) == []
    path = folder / "config" / "alerts.toml"
    with path.open("a", encoding="utf-8") as file:
        file.write(ON_CALL)
    (fault,) = check.faults(values, nowhere)
    assert "rota.ics: No such file" in fault
    with path.open("a", encoding="utf-8") as file:
        file.write("[targets.slack.breaker]\nfail_mx = 5\n")
    (fault,) = check.faults(values, nowhere)
    assert "fail_mx" in fault


def test_a_start_for_the_public_is_refused_with_the_examples_company_and_addresses(
    folder: Path,
) -> None:
    told = found(folder, "PUBLIC_BASE_URL=https://ostoja.firma.pl")
    assert [each.partition(":")[0] for each in told] == [
        "ESCALATION_EMAIL",
        "STAFF_EMAIL",
        "MAIL_FROM",
        "config/company.toml",
        "config/followups.toml",
        "config/forms.toml",
    ]
    for named in ("Ostoja Wnętrza", "1234563218"):
        assert named in told[3]
    assert '"sandbox"' in told[5]
