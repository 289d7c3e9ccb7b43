"""docker-compose.yml knows every setting: one that it lacked would be ignored in containers."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.backup.repository import Repository
from deploy.up import environment
from tests.support.shipped import whole

COMPOSE = yaml.safe_load((environment.ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
OF_THE_IMAGE = {"HTTP_HOST", "HTTP_PORT", "METRICS_PORT"}
# Migrations are setup's; the configuration is mounted where the services look for it; the last two
# are deploy/compose.tls.yml's.
NOT_GIVEN = {
    *("OWNER_DATABASE_URL", "ALERTS_CONFIG", "FOLLOWUPS_CONFIG", "COMPANY_CONFIG", "FORMS_CONFIG"),
    *("TLS_DIR", "HTTPS_PORT"),
}


def _given(service: str) -> dict[str, Any]:
    given: dict[str, Any] = COMPOSE["services"][service]["environment"]
    return given


@pytest.mark.parametrize("service", environment.SERVICES)
def test_a_container_is_given_every_setting_its_service_reads(service: str) -> None:
    module = importlib.import_module(f"services.{service}.settings")
    fields = getattr(module, f"{service.capitalize()}Settings").model_fields
    wanted = {name.upper() for name in fields} - OF_THE_IMAGE - NOT_GIVEN
    assert wanted - _given(service).keys() == set()


def test_alerts_is_given_every_variable_that_its_configuration_names() -> None:
    config = whole("alerts")
    named = {
        value["env"]
        for target in config["targets"].values()
        for value in target.values()
        if isinstance(value, dict) and "env" in value
    }
    assert named - _given("alerts").keys() == set()


def test_the_overlay_for_backups_changes_only_what_archives() -> None:
    overlay = yaml.safe_load(
        (environment.ROOT / "deploy" / "compose.backup.yml").read_text(encoding="utf-8")
    )
    assert overlay["services"].keys() == {"postgres", "consent"}
    own = COMPOSE["services"]["postgres"]["command"]
    command = overlay["services"]["postgres"]["command"]
    assert command[: len(own)] == own
    archive = dict(each.split("=", 1) for each in command[len(own) :] if each != "-c")
    assert archive.keys() == {"archive_mode", "archive_timeout", "archive_command"}
    ours = Repository(Path(), "", {}).environment(5432)
    theirs = overlay["services"]["postgres"]["environment"]
    assert theirs.keys() <= ours.keys()
    differ = {name for name, value in theirs.items() if str(value) != ours[name]}
    assert differ == {
        "PGBACKREST_PG1_PATH",
        "PGBACKREST_REPO1_PATH",
        "PGBACKREST_REPO1_CIPHER_PASS",
        "PGBACKREST_REPO1_RETENTION_FULL",
    }


def test_doctor_gets_every_secret_that_it_checks_and_the_other_commands_only_their_keys() -> None:
    assert environment.GENERATED.keys() - _given("inspector").keys() == set()
    assert _given("ostoja").keys() == {"OSTOJA_URL", "OSTOJA_OPERATOR", *environment.API_KEYS}
    tool = COMPOSE["services"]["ostoja"]
    assert (tool["networks"], tool.get("volumes")) == (["services"], None)


def test_the_sandbox_starts_only_with_its_profile() -> None:
    for name in ("sandbox", "mailpit"):
        assert COMPOSE["services"][name]["profiles"] == ["sandbox"]


def test_every_container_is_bounded() -> None:
    for name, service in COMPOSE["services"].items():
        for bound in ("mem_limit", "cpus", "pids_limit"):
            assert service[bound], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_the_servers_have_no_way_out_and_no_service_is_published() -> None:
    assert COMPOSE["networks"]["data"] == {"internal": True}
    for name in ("postgres", "redis"):
        assert COMPOSE["services"][name]["networks"] == ["data"]
    for name in environment.WITH_TABLES:
        assert COMPOSE["services"][name]["networks"] == ["services", "data"]
    for name, service in COMPOSE["services"].items():
        assert ("edge" in service["networks"]) is ("ports" in service), name


def test_with_tls_each_container_gets_its_own_certificate_and_the_gateway_calls_by_https() -> None:
    text = (environment.ROOT / "deploy" / "compose.tls.yml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    assert services.keys() == {*environment.SERVICES, "setup", "inspector"}
    for name, service in services.items():
        own = name if name in environment.SERVICES else "ostoja"
        (mounted,) = service["volumes"]
        # A short form would take certs/… for the name of a volume.
        assert (mounted["type"], mounted["read_only"]) == ("bind", True)
        assert mounted["source"].endswith(f"/{own}")
        assert mounted["target"] == f"/certs/{own}"
        assert service["environment"]["TLS_DIR"] == f"/certs/{own}"
    for name in environment.WITH_TABLES:
        assert "https://127.0.0.1:8080/health" in services[name]["healthcheck"]["test"][-1]
        for caller in ("gateway", "inspector"):
            url = services[caller]["environment"][f"{name.upper()}_URL"]
            assert url == f"https://{name}:8080"
    port = services["gateway"]["environment"]["HTTPS_PORT"]
    assert services["console"]["environment"]["GATEWAY_URL"] == f"https://gateway:{port}"
