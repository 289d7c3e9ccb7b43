"""`make up-cluster` and deploy/compose.cluster.yml run the same files, with what each names."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local.cluster import (
    FILES,
    PORTS,
    Cluster,
    HAProxy,
    PatroniNode,
    RabbitMQNode,
    RedisNode,
)
from deploy.local.environment import EXAMPLE, ROOT, parse

NAMED = {
    "haproxy.cfg": r'(?:"|:)\$\{(\w+)\}|env\((\w+)\)',
    "rabbitmq.conf": r"\$\((\w+)\)",
    "redis.sh": r"\$([A-Z_]+)",
}
CONTAINERS = {"haproxy.cfg": "haproxy", "rabbitmq.conf": "rabbit", "redis.sh": "redis-node"}
PASSWORDS = dict.fromkeys(
    ("POSTGRES_SUPERUSER_PASSWORD", "RABBITMQ_ADMIN_PASSWORD", "REDIS_PASSWORD"), "secret"
)
TEXT = (ROOT / "deploy" / "compose.cluster.yml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT.replace("!override", ""))


@pytest.fixture
def host(tmp_path: Path) -> Any:
    ports = {name: number for number, name in enumerate(PORTS, 1)}
    addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    return Cluster(tmp_path, addresses, ports, PASSWORDS).hosts["b"]


def named(file: str) -> set[str]:
    found = re.findall(NAMED[file], (FILES / file).read_text(encoding="utf-8"))
    names = {next(filter(None, one)) if isinstance(one, tuple) else one for one in found}
    assert names
    return names


def test_each_file_gets_every_variable_it_names(host: Any) -> None:
    haproxy: HAProxy = host.haproxy
    rabbitmq: RabbitMQNode = host.rabbitmq
    redis: RedisNode = host.redis
    assert named("haproxy.cfg") <= haproxy.settings.keys()
    assert named("rabbitmq.conf") <= rabbitmq._settings().keys()
    assert named("redis.sh") <= redis.settings.keys()


@pytest.mark.parametrize("file", NAMED)
def test_containers_get_every_variable_too(file: str) -> None:
    given = COMPOSE["services"][CONTAINERS[file]]["environment"]
    assert named(file) <= given.keys() | given.get("<<", {}).keys()


def test_patroni_gets_the_same_settings_in_a_container(host: Any) -> None:
    patroni: PatroniNode = host.postgres
    assert COMPOSE["services"]["patroni"]["environment"].keys() == patroni.settings.keys()
    assert COMPOSE["services"]["etcd"]["environment"].keys() == host.etcd.settings.keys()


def test_what_is_behind_haproxy_has_the_port_that_make_up_cluster_gives_it() -> None:
    example = parse(EXAMPLE.read_text(encoding="utf-8"))
    for name, value in COMPOSE["x-hosts"].items():
        if name.endswith("_OWN_PORT"):
            assert value == int(example[name.replace("_OWN_PORT", "_PORT")]) + 10000
        elif name.endswith("_PORT"):
            assert value == f"${{{name}:-{example[name]}}}"
