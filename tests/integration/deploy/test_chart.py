"""The chart, rendered by Helm. No cluster runs here: what a cluster would do is not tried."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import kubernetes_validate
import psycopg2
import pytest
import yaml
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT

from deploy import kubernetes
from deploy.up.environment import (
    AMQP_PASSWORDS,
    EXAMPLE_CONFIG,
    ROOT,
    SECRETS_OF,
    SERVICES,
    WITH_TABLES,
    defaults,
)
from deploy.up.process import Process, wait_until
from deploy.up.servers import Postgres, RabbitMQ, Redis
from libs.common import beside
from services.gateway.door.key_store import KEYS_IN_REDIS
from tests.support import charts
from tests.support.brokers import PASSWORDS, Management
from tests.support.charts import Manifest, containers, find, rendered
from tests.support.eventually import eventually
from tests.support.ports import HOST, Ports
from tests.support.runs import private_run
from tests.support.sandbox import Sandbox
from tests.support.servers import running
from tests.support.shipped import new_env
from tests.support.stack import status
from tests.support.system import System

TABLE = beside.toml(__file__)
EVERYTHING = {
    "gateway": {"autoscaling": {"min": 2, "max": 6, "cpu": 70}},
    "followups": {"autoscaling": {"min": 2, "max": 4, "cpu": 70}},
    "alerts": {"keda": {"enabled": True}, "secrets": ["CRM_URL"]},
    "consent": {"records": {"storageClassName": "fast"}},
    "imagePullSecrets": [{"name": "registry"}],
    "tls": {"secrets": "ostoja-tls"},
    "serversCaFile": "/app/config/ca.pem",
    "config": {"ca.pem": "-----BEGIN CERTIFICATE-----\n"},
}
OPERATORS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}  # kinds that Kubernetes lacks
PROMETHEUS = yaml.safe_load(
    (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
)
# Of the image, a file of /app/config, or, the last two, with `tls` only.
NOT_GIVEN = {
    *("HTTP_HOST", "HTTP_PORT", "METRICS_PORT", "OWNER_DATABASE_URL", "TLS_DIR", "HTTPS_PORT"),
    *("ALERTS_CONFIG", "FOLLOWUPS_CONFIG", "COMPANY_CONFIG", "FORMS_CONFIG"),
}


@pytest.fixture(scope="module")
def chart() -> list[Manifest]:
    return rendered()


@pytest.fixture(scope="module")
def full_chart() -> list[Manifest]:
    return rendered(**EVERYTHING)


def secret(**changes: str) -> dict[str, str]:
    """Return the data of the Secret `ostoja` from a new .env."""
    slack = "https://hooks.slack.com/x"
    given = {"SLACK_WEBHOOK_URL": slack, "MONDAY_API_TOKEN": "token", "SMS_API_TOKEN": "token"}
    items = kubernetes.secrets(new_env(**given | changes))["items"]
    data: dict[str, str] = find(items, "Secret", "ostoja")["stringData"]
    return data


def settings_of(service: str) -> dict[str, Any]:
    module = importlib.import_module(f"services.{service}.settings")
    fields: dict[str, Any] = getattr(module, f"{service.capitalize()}Settings").model_fields
    return {name.upper(): field for name, field in fields.items()}


def test_the_chart_is_clean() -> None:
    example = ("-f", str(charts.EXAMPLES / "values.yaml"), *charts.COMPANY)
    assert "[WARNING]" not in charts.helm("lint --strict", *example)


@pytest.mark.parametrize("version", ["1.30", "1.35", "1.37"])
def test_every_manifest_is_valid_for_kubernetes(
    chart: list[Manifest], full_chart: list[Manifest], version: str
) -> None:
    for manifest in (*chart, *full_chart, *charts.examples("rabbitmq.yaml")[1:2]):
        if manifest["kind"] not in OPERATORS:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_of_a_service_has_its_place(chart: list[Manifest], service: str) -> None:
    container = dict(containers(chart))[service]
    given = {variable["name"] for variable in container["env"]}
    fields = settings_of(service)
    required = {name for name, field in fields.items() if field.is_required()}
    assert required - given - NOT_GIVEN - {"PUBLIC_BASE_URL"} == set()
    secrets = {name for name, field in fields.items() if "SecretStr" in str(field.annotation)}
    assert secrets - given - NOT_GIVEN == set()
    # The rest is in `settings`, which has any name; it must be one of .env.example's.
    explained = defaults().keys()
    assert fields.keys() - given - explained - NOT_GIVEN == set()


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_gets_the_secrets_of_its_own_service_only(
    chart: list[Manifest], service: str
) -> None:
    keys = set(charts.secret_keys(dict(containers(chart))[service]).values())
    engines = {AMQP_PASSWORDS[service]}
    engines |= {"REDIS_PASSWORD"} if service == "gateway" else {f"{service.upper()}_DB_PASSWORD"}
    own = set() if service == "gateway" else {f"{service.upper()}_INTERNAL_KEY"}
    assert keys == SECRETS_OF[service] | engines | own


def test_a_secret_without_a_key_stops_the_pod_and_not_only_the_service(
    chart: list[Manifest],
) -> None:
    """The kubelet names the missing key; the service would name a variable."""
    made = secret().keys()
    for _, container in containers(chart):
        assert set(charts.secret_keys(container, required=True).values()) - made == set()


def test_the_engines_accounts_are_those_of_the_examples() -> None:
    values = new_env(POSTGRES_SUPERUSER="ostoja_setup")
    items = kubernetes.secrets(values)["items"]
    account, admin = (
        find(items, "Secret", name) for name in ("ostoja-postgres", "ostoja-rabbitmq")
    )
    (cluster,) = charts.examples("postgres.yaml")
    (role,) = cluster["spec"]["managed"]["roles"]
    example = yaml.safe_load((charts.EXAMPLES / "values.yaml").read_text(encoding="utf-8"))
    assert role["name"] == account["stringData"]["username"] == example["postgres"]["superuser"]
    assert role["passwordSecret"]["name"] == account["metadata"]["name"]
    broker = charts.examples("rabbitmq.yaml")[0]
    assert broker["spec"]["secretBackend"]["externalSecret"]["name"] == admin["metadata"]["name"]
    assert admin["stringData"]["default_user.conf"].splitlines() == [
        "default_user = admin",
        f"default_pass = {values['RABBITMQ_ADMIN_PASSWORD']}",
    ]


def test_the_examples_values_name_the_examples_engines() -> None:
    (cluster,) = charts.examples("postgres.yaml")
    broker, budget, monitor = charts.examples("rabbitmq.yaml")
    (valkey,) = charts.examples("valkey.yaml")
    values = yaml.safe_load((charts.EXAMPLES / "values.yaml").read_text(encoding="utf-8"))
    assert values["postgres"]["address"] == f"{cluster['metadata']['name']}-rw:5432"
    name, nodes = broker["metadata"]["name"], range(broker["spec"]["replicas"])
    hosts = [f"{name}-server-{node}.{name}-nodes:5672" for node in nodes]
    assert values["rabbitmq"]["address"] == ",".join(hosts)
    assert values["rabbitmq"]["managementUrl"] == f"http://{name}:15672"
    for selector in (budget["spec"]["selector"], monitor["spec"]["selector"]):
        assert selector["matchLabels"]["app.kubernetes.io/name"] == name
    assert valkey["auth"]["usersExistingSecret"] == "ostoja"
    assert valkey["auth"]["aclUsers"]["default"]["passwordKey"] == "REDIS_PASSWORD"


def test_postgresql_commits_only_what_survives_the_loss_of_a_server() -> None:
    (cluster,) = charts.examples("postgres.yaml")
    assert cluster["spec"]["instances"] == 3
    assert cluster["spec"]["postgresql"]["synchronous"] == {
        "method": "any",
        "number": 1,
        "dataDurability": "required",
        "failoverQuorum": True,
    }


def test_the_rules_are_those_of_deploy_prometheus(chart: list[Manifest]) -> None:
    rules = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    assert find(chart, "PrometheusRule", "ostoja")["spec"] == yaml.safe_load(rules)


def test_the_jobs_are_those_that_the_rules_know(chart: list[Manifest]) -> None:
    monitor = find(chart, "ServiceMonitor", "ostoja")["spec"]
    assert monitor["jobLabel"] == "app.kubernetes.io/component"
    selected = [
        manifest
        for manifest in chart
        if manifest["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= manifest["metadata"]["labels"].items()
    ]
    jobs = {each["metadata"]["labels"][monitor["jobLabel"]] for each in selected}
    broker = charts.examples("rabbitmq.yaml")[2]["spec"]
    of_prometheus = {each["job_name"]: each for each in PROMETHEUS["scrape_configs"]}
    assert jobs | {"rabbitmq", "queues"} == of_prometheus.keys()
    plain, detailed = broker["endpoints"]
    assert broker["selector"]["matchLabels"][broker["jobLabel"]] == "rabbitmq"
    assert "path" not in plain
    queues = of_prometheus["queues"]
    assert (detailed["path"], detailed["params"]) == (queues["metrics_path"], queues["params"])
    assert detailed["relabelings"] == [{"targetLabel": "job", "replacement": "queues"}]
    for manifest in selected:
        assert {port["name"] for port in manifest["spec"]["ports"]} >= {"metrics"}


@pytest.mark.parametrize(("values", "said"), TABLE["refused"])
def test_a_missing_or_harmful_value_is_refused_by_its_name(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(charts.HelmError, match=said):
        rendered(**values)


def test_the_example_company_is_not_installed_by_accident() -> None:
    with pytest.raises(charts.HelmError, match=r"must have company\.toml"):
        charts.helm("template ostoja", "-f", str(charts.EXAMPLES / "values.yaml"))


def test_a_file_of_the_config_can_be_replaced_added_and_removed(tmp_path: Path) -> None:
    config = {"templates/mine.j2": "x", "forms.toml": None, "rota-sales.ics": "own"}
    charts.write_files(rendered(config=config), "alerts", tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    shipped = {
        str(path.relative_to(EXAMPLE_CONFIG))
        for path in EXAMPLE_CONFIG.rglob("*")
        if path.is_file()
    }
    assert written == shipped - {"forms.toml"} | {"templates/mine.j2"}
    assert (tmp_path / "rota-sales.ics").read_text(encoding="utf-8") == "own"
    shipped_text = (EXAMPLE_CONFIG / "followups.toml").read_text(encoding="utf-8")
    assert (tmp_path / "followups.toml").read_text(encoding="utf-8") == shipped_text


def test_a_large_number_is_written_as_one() -> None:
    """Helm reads numbers as floating-point ones."""
    chart = rendered(settings={"MAX_CONNECTIONS": 1_000_000, "PERMIT_SECONDS": 20})
    data = find(chart, "ConfigMap", "ostoja-settings")["data"]
    assert (data["MAX_CONNECTIONS"], data["PERMIT_SECONDS"]) == ("1000000", "20")


def _files_hash(manifests: list[Manifest]) -> str:
    pod = find(manifests, "Deployment", "ostoja-alerts")["spec"]["template"]["spec"]
    (volume,) = (each["configMap"]["name"] for each in pod["volumes"] if each["name"] == "config")
    return str(volume).removeprefix("ostoja-config-")


def test_a_pod_keeps_its_files_while_those_of_the_next_version_come(chart: list[Manifest]) -> None:
    changed = rendered(config={"followups.toml": "# of the next version"})
    assert _files_hash(changed) != _files_hash(chart)


def test_the_setup_precedes_every_pod_of_the_new_version(chart: list[Manifest]) -> None:
    hooks = {
        manifest["metadata"]["name"]: manifest["metadata"]["annotations"]
        for manifest in chart
        if "helm.sh/hook" in manifest["metadata"].get("annotations", {})
    }
    weights = {name: int(each.get("helm.sh/hook-weight", 0)) for name, each in hooks.items()}
    assert weights.pop("ostoja-setup") == 0
    assert sorted(weights) == ["ostoja-setup-config-" + _files_hash(chart), "ostoja-setup-settings"]
    assert set(weights.values()) == {-1}
    assert {each["helm.sh/hook"] for each in hooks.values()} == {"pre-install,pre-upgrade"}


def test_the_api_keys_of_a_gateway_are_not_on_the_disk_that_ends_with_its_pod(
    chart: list[Manifest],
) -> None:
    gateway = dict(containers(chart))["gateway"]
    assert {"name": "KEYS_STATE_FILE", "value": str(KEYS_IN_REDIS)} in gateway["env"]


def test_a_pod_leaves_before_it_stops(chart: list[Manifest]) -> None:
    """It answers for DRAIN_DELAY_SECONDS after SIGTERM; /api/ready says so at once."""
    assert find(chart, "ConfigMap", "ostoja-settings")["data"]["DRAIN_DELAY_SECONDS"] == "8"
    for name, container in containers(chart):
        if name != "setup":
            path = container["readinessProbe"]["httpGet"]["path"]
            assert path == ("/api/ready" if name == "gateway" else "/health")
    for manifest in chart:
        if manifest["kind"] in {"Deployment", "StatefulSet"}:
            assert manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 35


def test_no_container_is_root_or_may_write_its_image(full_chart: list[Manifest]) -> None:
    assert {name for name, _ in containers(full_chart)} == {*SERVICES, "setup"}
    for name, container in containers(full_chart):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
    for manifest in full_chart:
        if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            pod = manifest["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["automountServiceAccountToken"] is False


def test_with_tls_a_pod_gets_its_own_certificate_and_its_probes_need_none(
    full_chart: list[Manifest],
) -> None:
    for manifest in full_chart:
        if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            pod = manifest["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            (secret,) = (each["secret"] for each in pod["volumes"] if "secret" in each)
            assert secret["secretName"] == f"ostoja-tls-{container['name']}"
            assert {"name": "TLS_DIR", "value": "/certs"} in container["env"]
            assert {"name": "tls", "mountPath": "/certs", "readOnly": True} in container[
                "volumeMounts"
            ]
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if asked := container.get(probe, {}).get("httpGet"):
                    is_gateway = container["name"] == "gateway"
                    assert asked["port"] == ("http" if is_gateway else "metrics")
    urls, of_console = (
        {each["name"]: each.get("value", "") for each in dict(containers(full_chart))[name]["env"]}
        for name in ("gateway", "console")
    )
    for service in WITH_TABLES:
        assert urls[f"{service.upper()}_URL"] == f"https://ostoja-{service}:8080"
    assert of_console["GATEWAY_URL"] == f"https://ostoja-gateway:{urls['HTTPS_PORT']}"
    ports = find(full_chart, "Service", "ostoja-gateway")["spec"]["ports"]
    assert {"name": "https", "port": int(urls["HTTPS_PORT"]), "targetPort": "https"} in ports
    own = dict(containers(full_chart))["gateway"]["ports"]
    assert {"name": "https", "containerPort": int(urls["HTTPS_PORT"])} in own
    _, https, _ = find(full_chart, "NetworkPolicy", "ostoja-gateway")["spec"]["ingress"]
    assert https["ports"] == [{"port": "https"}]
    (peer,) = https["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "console"


def test_the_examples_have_a_certificate_for_each_process_and_each_of_its_names() -> None:
    folder = charts.EXAMPLES / "tls"
    certificates = {
        each["spec"]["secretName"]: each["spec"].get("dnsNames", [])
        for each in charts.examples("tls/certificates.yaml")
        if each["kind"] == "Certificate"
    }
    made = rendered("-f", str(folder / "values.yaml"))
    (postgres,) = charts.examples("tls/postgres.yaml")
    (rabbitmq,) = charts.examples("tls/rabbitmq.yaml")
    (valkey,) = charts.examples("tls/valkey.yaml")
    used = {
        *(f"ostoja-tls-{name}" for name, _ in containers(made)),
        *postgres["spec"]["certificates"].values(),
        rabbitmq["spec"]["tls"]["secretName"],
        valkey["tls"]["existingSecret"],
    }
    assert used | {"ostoja-authority"} == certificates.keys()
    gateway, setup = (dict(containers(made))[name] for name in ("gateway", "setup"))
    urls = charts.environment(made, gateway, secret()) | charts.environment(made, setup, secret())
    for service in WITH_TABLES:
        assert f"ostoja-{service}" in certificates[f"ostoja-tls-{service}"]
    assert "ostoja-gateway" in certificates["ostoja-tls-gateway"]
    assert urls["POSTGRES_ADDRESS"].removesuffix(":5432") in certificates["ostoja-tls-postgres"]
    assert f"@{certificates['ostoja-tls-valkey'][0]}:" in urls["REDIS_URL"]
    name, nodes = certificates["ostoja-tls-rabbitmq"]
    assert urls["RABBITMQ_MANAGEMENT_URL"] == f"https://{name}:15671"
    for node in urls["AMQP_URL"].partition("@")[2].partition("/")[0].split(","):
        assert node.partition(".")[2] == f"{nodes.removeprefix('*.')}:5671"
    # What the patch replaces stays, too.
    before = charts.examples("rabbitmq.yaml")[0]["spec"]["rabbitmq"]["additionalConfig"]
    after = rabbitmq["spec"]["rabbitmq"]["additionalConfig"]
    assert after == before + "ssl_options.fail_if_no_peer_cert = true\n"


def test_only_the_gateway_is_open_to_all(chart: list[Manifest]) -> None:
    for service in SERVICES:
        http = find(chart, "NetworkPolicy", f"ostoja-{service}")["spec"]["ingress"][0]
        if service == "gateway":
            assert "from" not in http
        else:
            (peer,) = http["from"]
            labels = peer["podSelector"]["matchLabels"]
            assert labels["app.kubernetes.io/component"] == "gateway"


def test_replicas_are_left_to_what_scales(full_chart: list[Manifest]) -> None:
    """Else each upgrade would set them back."""
    for service in ("gateway", "followups", "alerts"):
        assert "replicas" not in find(full_chart, "Deployment", f"ostoja-{service}")["spec"]
    scaled = find(full_chart, "ScaledObject", "ostoja-alerts")["spec"]
    assert scaled["triggers"][0]["metadata"]["queueName"] == "alerts.intake"
    environment = charts.environment(
        full_chart, dict(containers(full_chart))["alerts"], secret() | {"CRM_URL": "x"}
    )
    asked = environment[scaled["triggers"][0]["metadata"]["hostFromEnv"]]
    assert asked.endswith("@ostoja-rabbitmq-server-0.ostoja-rabbitmq-nodes:5672/ostoja")
    assert environment["CRM_URL"] == "x"


def test_the_manifests_commands_and_settings_run_the_system_on_real_engines(
    rabbitmq: RabbitMQ, redis_server: Redis, sandbox: Sandbox, ports: Ports, tmp_path: Path
) -> None:
    """As far as a machine without Kubernetes goes: processes for containers, ports for Services.

    The setup account is as CloudNativePG makes it for the example: no superuser.
    """
    with (
        private_run() as folder,
        running(Postgres(folder / "postgres", port=ports.take(), password="superuser")) as postgres,
    ):
        with closing(psycopg2.connect(postgres.dsn)) as server, server.cursor() as cursor:
            server.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
            cursor.execute("CREATE ROLE ostoja_setup LOGIN CREATEROLE CREATEDB PASSWORD 'of-setup'")
        manifests = rendered(
            settings={
                "ALERTS_PRIVATE_NETWORKS": "127.0.0.1/32",
                "MONDAY_API_URL": f"{sandbox.url}/monday",
                "SMS_API_URL": f"{sandbox.url}/sms",
                "WEBHOOK_URL": f"{sandbox.url}/webhook",
                "SMTP_HOST": HOST,
                "SMTP_PORT": str(sandbox.smtp_port),
                "SMTP_TLS": "none",
                "DRAIN_DELAY_SECONDS": "0",
            },
            postgres={"address": f"{HOST}:{postgres.port}", "options": ""},
            rabbitmq={
                "address": f"{HOST}:{rabbitmq.port}",
                "managementUrl": rabbitmq.management_url,
            },
            redis={"address": f"{HOST}:{redis_server.port}"},
        )
        for component in (*SERVICES, "setup"):
            charts.write_files(manifests, component, tmp_path / component / "config")
        data = secret(
            # The accounts of this run's RabbitMQ, which other tests use.
            **{f"{name.upper()}_AMQP_PASSWORD": each for name, each in PASSWORDS.items()},
            POSTGRES_SUPERUSER_PASSWORD="of-setup",
            RABBITMQ_ADMIN_PASSWORD=rabbitmq.password,
            REDIS_PASSWORD=redis_server.password,
            SLACK_WEBHOOK_URL=f"{sandbox.url}/slack",
        )
        found = dict(containers(manifests))
        http_ports = {name: ports.take() for name in SERVICES}

        def given(name: str) -> dict[str, str]:
            inherited = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
            here = tmp_path / name
            own = {
                "PYTHONPATH": str(ROOT),
                **{  # /app/config, for setup, which looks beside the code
                    f"{each.upper()}_CONFIG": str(here / "config" / f"{each}.toml")
                    for each in ("alerts", "company", "followups", "forms")
                },
                "CONSENT_RECORDS_DIR": str(here / "records"),
                "RATE_LIMIT_STATE_FILE": str(here / "ratelimits.json"),
                **{
                    f"{each.upper()}_URL": f"http://{HOST}:{http_ports[each]}"
                    for each in WITH_TABLES
                },
            }
            if name in http_ports:
                own |= {"HTTP_PORT": str(http_ports[name]), "METRICS_PORT": str(ports.take())}
            return inherited | charts.environment(manifests, found[name], data) | own

        def command(name: str) -> list[str]:
            python, *arguments = found[name]["command"]
            assert python == "python"
            return [sys.executable, *arguments]

        done = subprocess.run(
            command("setup"),
            cwd=tmp_path / "setup",
            env=given("setup"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        started = {name: Process(tmp_path / f"{name}.pid") for name in SERVICES}
        try:
            for name, process in started.items():
                log = tmp_path / f"{name}.log"
                process.spawn(command(name), cwd=tmp_path / name, env=given(name), log=log)
            for name, port in http_ports.items():
                path = found[name]["readinessProbe"]["httpGet"]["path"]
                wait_until(
                    name,
                    40,
                    lambda port=port, path=path: status(port, path) == 200,  # type: ignore[misc]
                    lambda name=name: started[name].pid is not None,  # type: ignore[misc]
                )
            url = f"http://{HOST}:{http_ports['gateway']}"
            asyncio.run(_delivers(System(url, data, sandbox)))
        finally:
            for process in started.values():
                process.stop(signal.SIGTERM, 40)
            Management(rabbitmq).call("DELETE", "vhosts/ostoja")


async def _delivers(system: System) -> None:
    await system.alert("from the chart")

    async def delivered() -> bool:
        return any("from the chart" in text for text in await system.slack_texts())

    await eventually(delivered, 30)
