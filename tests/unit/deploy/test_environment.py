import importlib
import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from deploy.sandbox.__main__ import SandboxSettings
from deploy.up import environment
from deploy.up.environment import EXAMPLE, EXPERT, GENERATED, SECRETS, SERVICES, parse
from deploy.up.process import ServerError
from libs.common.process.settings import Settings
from ostoja import where
from ostoja.app import app
from tests.support import settings as experts
from tests.support.shipped import whole

# What deploy/up composes from ports and passwords.
COMPOSED = {
    "HTTP_PORT",
    "METRICS_PORT",
    "DATABASE_URL",
    "OWNER_DATABASE_URL",
    "AMQP_URL",
    "REDIS_URL",
    "SANDBOX_HOST",
    "SANDBOX_SLACK_FILE",
    "INTERNAL_API_KEY",
    "TLS_DIR",
    "HTTPS_PORT",
}
DOCUMENTED = environment.defaults()


@pytest.fixture
def env(tmp_path: Path) -> Path:
    """A new .env for a trial."""
    path = tmp_path / ".env"
    environment.ensure(path, data_exists=False, trying=True)
    return path


def settings_of(service: str) -> type[Settings]:
    if service == "sandbox":
        return SandboxSettings
    module = importlib.import_module(f"services.{service}.settings")
    found: type[Settings] = getattr(module, f"{service.capitalize()}Settings")
    return found


@pytest.mark.parametrize("service", [*SERVICES, "sandbox"])
def test_every_setting_of_a_service_is_in_the_example_with_its_default(service: str) -> None:
    for field, info in settings_of(service).model_fields.items():
        name = field.upper()
        if name in COMPOSED:
            continue
        assert name in DOCUMENTED
        if DOCUMENTED[name] and info.default is not PydanticUndefined:
            text = {"on": "True", "off": "False"}.get(DOCUMENTED[name], DOCUMENTED[name])
            assert text == str(info.default)


def test_every_variable_named_in_alerts_toml_is_in_the_example() -> None:
    named = re.findall(r"'env': '([A-Z_]+)'", str(whole("alerts")))
    assert {*named} <= DOCUMENTED.keys()


def test_the_example_holds_no_secret() -> None:
    assert not any(DOCUMENTED[name] for name in SECRETS)


def test_a_first_run_generates_every_secret_for_the_owner_alone(env: Path) -> None:
    values = environment.parse(env.read_text())
    assert all(values[name] for name in GENERATED)
    assert len({values[name] for name in GENERATED}) == len(GENERATED)
    assert env.stat().st_mode & 0o777 == 0o600


def test_config_gets_what_is_missing_and_keeps_what_was_edited(tmp_path: Path) -> None:
    (tmp_path / "followups.toml").write_text("edited")
    environment.ensure_config(tmp_path)
    assert (tmp_path / "followups.toml").read_text() == "edited"
    for shipped in environment.EXAMPLE_CONFIG.rglob("*.toml"):
        assert (tmp_path / shipped.relative_to(environment.EXAMPLE_CONFIG)).exists()


def test_a_later_run_changes_nothing(env: Path) -> None:
    before = env.read_text()
    environment.ensure(env, data_exists=True, trying=True)
    assert env.read_text() == before


def test_keys_are_not_generated_over_existing_data(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="CONSENT_MASTER_KEYS"):
        environment.ensure(tmp_path / ".env", data_exists=True, trying=True)
    assert not (tmp_path / ".env").exists()


def test_a_key_that_a_newer_version_needs_is_added(env: Path) -> None:
    own = env.read_text().replace("LOG_LEVEL=INFO", "LOG_LEVEL=DEBUG")
    old = "\n".join(line for line in own.splitlines() if not line.startswith("REDIS_PASSWORD"))
    env.write_text(old)
    environment.ensure(env, data_exists=True, trying=True)
    assert env.read_text().startswith(old)
    assert environment.parse(env.read_text())["REDIS_PASSWORD"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_no_secret_of_another(service: str) -> None:
    values = DOCUMENTED | {name: f"the-{name}" for name in SECRETS}
    got = environment.for_process(values, service)
    others = SECRETS - environment.SECRETS_OF[service]
    leaked = {name for name in others if f"the-{name}" in "".join(got.values())}
    own = {
        environment.AMQP_PASSWORDS[service],
        environment.DATABASE_PASSWORDS.get(service),
        environment.INTERNAL_KEYS.get(service),
    }
    allowed = own | ({"REDIS_PASSWORD"} if service == "gateway" else set())
    assert leaked <= allowed


def test_a_real_provider_gets_no_setting_of_the_sandbox() -> None:
    values = DOCUMENTED | {"SMTP_HOST": "mail.example.com"}
    settings = environment.for_process(values, "alerts")
    assert "SMTP_PORT" not in settings
    assert "SMTP_TLS" not in settings


@pytest.mark.parametrize("relay", ["", "mail.example.com"])
def test_the_sandbox_has_the_service_key_only_while_it_takes_the_mail(relay: str) -> None:
    values = DOCUMENTED | {"SERVICE_API_KEY": "key", "SMTP_HOST": relay}
    assert ("SERVICE_API_KEY" in environment.for_process(values, "sandbox")) is not bool(relay)


def test_alerts_may_connect_to_the_sandbox_only_if_it_replaces_a_provider() -> None:
    def private(name: str = "ALERTS_PRIVATE_NETWORKS", /, **given: str) -> str | None:
        return environment.for_process(DOCUMENTED | given, "alerts").get(name)

    subscriptions = "SUBSCRIPTIONS_PRIVATE_NETWORKS"
    assert private() == private(subscriptions) == "127.0.0.1/32"
    assert private(ALERTS_PRIVATE_NETWORKS="10.0.0.0/8") == "10.0.0.0/8,127.0.0.1/32"
    real = {
        "SLACK_WEBHOOK_URL": "https://hooks.slack.example/T/B/x",
        "WEBHOOK_URL": "https://hooks.example",
        "MONDAY_API_TOKEN": "token",
        "SMS_API_TOKEN": "token",
        "SMTP_HOST": "mail.example",
    }
    assert private(**real) is None
    assert private(subscriptions, **real) is None
    assert private(**real, ALERTS_PRIVATE_NETWORKS="10.0.0.0/8") == "10.0.0.0/8"


def test_a_malformed_port_is_named() -> None:
    with pytest.raises(ServerError, match="GATEWAY_PORT"):
        environment.port({"GATEWAY_PORT": "80 80"}, "GATEWAY_PORT")


def test_a_first_env_is_for_a_trial_or_for_production(tmp_path: Path) -> None:
    written = {}
    for trying in (True, False):
        path = tmp_path / f"{trying}.env"
        assert environment.ensure(path, data_exists=False, trying=trying)
        assert not environment.ensure(path, data_exists=True, trying=not trying)
        written[trying] = environment.parse(path.read_text(encoding="utf-8"))
    running, tried = written[False], written[True]
    assert (running["FOLLOWUP_QUIET_HOURS"], running["COMPOSE_PROFILES"]) == ("on", "")
    assert (tried["FOLLOWUP_QUIET_HOURS"], tried["COMPOSE_PROFILES"]) == ("off", "sandbox")
    assert running["COMPOSE_PROJECT_NAME"] != tried["COMPOSE_PROJECT_NAME"]


def test_running_containers_keep_their_names(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    environment.ensure(path, data_exists=False, trying=False)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "COMPOSE_PROJECT_NAME" not in line))
    environment.ensure(path, data_exists=True, trying=False)
    assert "COMPOSE_PROJECT_NAME" not in path.read_text(encoding="utf-8")


def test_port_offset_is_idempotent_for_every_port(
    env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = environment.parse(env.read_text(encoding="utf-8"))
    monkeypatch.setenv("PORT_OFFSET", "1000")
    for _ in range(2):
        environment.ensure(env, data_exists=True, trying=True)
    moved = environment.parse(env.read_text(encoding="utf-8"))
    ports = {name for name in DOCUMENTED if name.endswith("_PORT") and DOCUMENTED[name]}
    assert {name: int(moved[name]) - int(DOCUMENTED[name]) for name in ports} == dict.fromkeys(
        ports, 1000
    )
    assert {name: moved[name] for name in keys.keys() - ports} == {
        name: keys[name] for name in keys.keys() - ports
    }


@pytest.mark.parametrize("offset", ["-1", "1e3", "60000", " "])
def test_an_invalid_port_offset_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: str
) -> None:
    monkeypatch.setenv("PORT_OFFSET", offset)
    with pytest.raises(ServerError, match="PORT_OFFSET"):
        environment.ensure(tmp_path / ".env", data_exists=False, trying=True)
    assert not (tmp_path / ".env").exists()


def test_with_certificates_the_console_asks_the_gateway_by_https() -> None:
    values = DOCUMENTED | {"CERTS_DIR": "certs/a"}
    gateway, console = (environment.for_process(values, name) for name in ("gateway", "console"))
    assert console["GATEWAY_URL"] == f"https://127.0.0.1:{gateway['HTTPS_PORT']}"
    # On three hosts it asks HAProxy of its own, which encrypts what leaves the host.
    hosts = ["127.0.0.1", "127.0.0.2"]
    of_host = [environment.for_member(values, name, hosts[0], hosts) for name in SERVICES]
    assert not [each for each in of_host if "HTTPS_PORT" in each]
    (url,) = (each["GATEWAY_URL"] for each in of_host if "GATEWAY_URL" in each)
    assert url == f"http://{hosts[0]}:{values['GATEWAY_PORT']}"


def test_a_company_has_few_settings_to_read() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 120
    named = [parse(file.read_text(encoding="utf-8")) for file in (EXAMPLE, EXPERT)]
    assert named[0].keys() & named[1].keys() == set()


def test_the_experts_table_is_todays_and_explains_each_setting() -> None:
    page = experts.PAGE.read_text(encoding="utf-8")
    assert page.endswith(f"\n\n{experts.table()}\n"), "python -m tests.support.settings"
    every = [*experts.settings(EXPERT), *experts.settings(EXAMPLE)]
    assert {each.name for each in every} == DOCUMENTED.keys()
    assert [each.name for each in every if not each.meaning] == []


def test_config_show_prints_all_that_is_shipped(tmp_path: Path) -> None:
    files = {file.name for file in where.shipped()}
    assert {"expert.env", ".env.example", "alerts.toml", "company.toml", "forms.toml"} < files
    assert {"defaults.toml", "routes-0-words.toml"} < files
    shown = CliRunner().invoke(app, ["config", "show", "--defaults"]).output
    assert "[targets.slack]" in shown
    assert "PERMIT_SECONDS=20" in shown
