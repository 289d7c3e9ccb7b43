"""docker-compose.yml knows every setting: one that it lacked would be ignored in containers."""

import importlib
import tomllib
from typing import Any

import pytest
import yaml

from deploy.local.environment import EXAMPLE, GENERATED, ROOT, SERVICES, parse

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
OF_THE_IMAGE = {"HTTP_HOST", "HTTP_PORT", "METRICS_PORT"}
# Migrations are setup's; the configuration is mounted where the services look for it.
NOT_GIVEN = {"OWNER_DATABASE_URL", "ALERTS_CONFIG", "FOLLOWUPS_CONFIG"}


def _given(service: str) -> dict[str, Any]:
    given: dict[str, Any] = COMPOSE["services"][service]["environment"]
    return given


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_given_every_setting_its_service_reads(service: str) -> None:
    module = importlib.import_module(f"services.{service}.settings")
    fields = getattr(module, f"{service.capitalize()}Settings").model_fields
    wanted = {name.upper() for name in fields} - OF_THE_IMAGE - NOT_GIVEN
    assert wanted - _given(service).keys() == set()


def test_alerts_is_given_every_variable_that_its_configuration_names() -> None:
    config = tomllib.loads((ROOT / "config" / "alerts.toml").read_text(encoding="utf-8"))
    named = {
        value["env"]
        for target in config["targets"].values()
        for value in target.values()
        if isinstance(value, dict) and "env" in value
    }
    assert named - _given("alerts").keys() == set()


def test_the_doctor_is_given_every_secret_that_it_looks_at() -> None:
    assert GENERATED.keys() - _given("ostoja").keys() == set()


def test_what_passes_through_is_explained_in_the_example() -> None:
    explained = parse(EXAMPLE.read_text(encoding="utf-8")).keys()
    for service in SERVICES:
        passed = {name for name, value in _given(service).items() if value is None}
        assert passed - explained == set()
