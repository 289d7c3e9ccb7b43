"""`make up-cluster` and deploy/compose.cluster.yml run the same files, with what each names."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.up.environment import ROOT, WITH_TABLES, defaults
from tests.cluster import harness

NAMED = {
    "haproxy.cfg": (r'(?:"|:)\$\{(\w+)\}|env\((\w+)\)', "haproxy"),
    "rabbitmq.conf": (r"\$\((\w+)\)", "rabbit"),
    "rabbitmq_plain.conf": (r"\$\((\w+)\)", "rabbit"),
    "rabbitmq_tls.conf": (r"\$\((\w+)\)", "rabbit"),
    "redis.sh": (r"\$([A-Z_]+)", "redis-node"),
}
"""How a file names variables, and the container that reads it."""
OF_TLS = {"TLS_DIR", "GATEWAY_PLAIN"}
PASSWORDS = dict.fromkeys(
    ("POSTGRES_SUPERUSER_PASSWORD", "RABBITMQ_ADMIN_PASSWORD", "REDIS_PASSWORD"), "secret"
)


def compose(name: str) -> dict[str, Any]:
    text = (ROOT / "deploy" / f"compose.{name}.yml").read_text(encoding="utf-8")
    made: dict[str, Any] = yaml.safe_load(text.replace("!override", ""))
    return made


COMPOSE, WITH_TLS = compose("cluster"), compose("cluster-tls")


def environment(service: str, *, tls: bool = False) -> dict[str, Any]:
    given: dict[str, Any] = dict(COMPOSE["services"][service]["environment"])
    return given | (WITH_TLS["services"][service]["environment"] if tls else {})


def host(folder: Path, *, tls: bool) -> Any:
    ports = {name: number for number, name in enumerate(harness.PORTS, 1)}
    addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    certs = folder / "certs" if tls else None
    return harness.Cluster(folder, addresses, ports, PASSWORDS, certs=certs).hosts["b"]


def named(file: str) -> set[str]:
    found = re.findall(NAMED[file][0], (harness.FILES / file).read_text(encoding="utf-8"))
    names = {next(filter(None, one)) if isinstance(one, tuple) else one for one in found}
    assert names
    return names


@pytest.mark.parametrize("tls", [False, True])
def test_each_file_gets_every_variable_it_names(tmp_path: Path, *, tls: bool) -> None:
    made = host(tmp_path, tls=tls)
    haproxy: harness.HAProxy = made.haproxy
    rabbitmq: harness.RabbitMQNode = made.rabbitmq
    redis: harness.RedisNode = made.redis
    absent = set() if tls else OF_TLS
    assert named("haproxy.cfg") - absent <= haproxy.settings.keys()
    assert named("redis.sh") - absent <= redis.settings.keys()
    listeners = f"rabbitmq_{'tls' if tls else 'plain'}.conf"
    assert rabbitmq._settings()["RABBITMQ_CONFIG_FILES"].endswith(listeners)
    assert named("rabbitmq.conf") | named(listeners) <= rabbitmq._settings().keys()


@pytest.mark.parametrize("file", NAMED)
def test_containers_get_every_variable_too(file: str) -> None:
    service = NAMED[file][1]
    given = environment(service) | environment(service).get("<<", {})
    assert named(file) - OF_TLS <= given.keys()
    assert named(file) <= given.keys() | environment(service, tls=True).keys()


@pytest.mark.parametrize("tls", [False, True])
def test_patroni_and_etcd_get_the_same_settings_in_a_container(
    tmp_path: Path, *, tls: bool
) -> None:
    made = host(tmp_path, tls=tls)
    patroni: harness.PatroniNode = made.postgres
    assert environment("patroni", tls=tls).keys() == patroni.settings.keys()
    assert environment("etcd", tls=tls).keys() == made.etcd.settings.keys()


def test_with_tls_each_server_gets_its_own_certificate_and_speaks_nothing_else() -> None:
    servers = {name for name, each in COMPOSE["services"].items() if "network_mode" in each}
    assert servers
    for name in servers:
        before, own = (each["services"][name] for each in (COMPOSE, WITH_TLS))
        process = {"patroni": "postgres", "rabbit": "rabbitmq"}.get(name, name)
        process = "redis" if name in {"redis-node", "sentinel"} else process
        (mounted,) = own["volumes"]
        assert mounted["source"].endswith(f"/{process}")
        assert mounted["target"] == f"{own.get('working_dir', before.get('working_dir'))}/tls"
        assert own["group_add"] == ["10001"]
    plain = {name for name, value in environment("etcd").items() if "http://" in value}
    assert plain <= WITH_TLS["services"]["etcd"]["environment"].keys()
    assert "http://" not in str(environment("etcd", tls=True))
    for name in WITH_TABLES:
        url = WITH_TLS["services"]["gateway"]["environment"][f"{name.upper()}_URL"]
        assert url.startswith("https://${HOST}:")
    # HAProxy knows every gateway, so the console goes on without that of its host.
    assert environment("console", tls=True) == environment("console")


def test_with_tls_only_haproxy_of_the_same_host_reaches_the_plain_gateway() -> None:
    plain = environment("haproxy", tls=True)["GATEWAY_PLAIN"]
    assert plain.startswith("127.0.0.1:")
    assert WITH_TLS["services"]["gateway"]["ports"] == [f"{plain}:8080"]
    assert COMPOSE["services"]["haproxy"]["network_mode"] == "host"


def test_what_is_behind_haproxy_has_the_port_that_make_up_cluster_gives_it() -> None:
    example = defaults()
    for name, value in COMPOSE["x-hosts"].items():
        if name.endswith("_OWN_PORT"):
            assert value == int(example[name.replace("_OWN_PORT", "_PORT")]) + 10000
        elif name.endswith("_PORT"):
            assert value == f"${{{name}:-{example[name]}}}"
