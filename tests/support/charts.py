"""The Helm chart, rendered, and what its containers get."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.up.environment import EXAMPLE_CONFIG, ROOT
from tests.support import checkers

HELM = ROOT / "deploy" / "helm"
CHART = HELM / "ostoja"
EXAMPLES = HELM / "examples"
COMPANY = ("--set-file", f"config.company\\.toml={EXAMPLE_CONFIG / 'company.toml'}")
Manifest = dict[str, Any]


class HelmError(AssertionError):
    """Helm refused; the text is what a user reads."""


def helm(command: str, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
    """Run Helm on the chart.

    :raises HelmError:
    """
    done = subprocess.run(
        [checkers.helm(), *command.split(), CHART, *arguments, "-f", "-"],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout


def rendered(*arguments: str, **values: Any) -> list[Manifest]:
    """Render the release `ostoja` with the example's values, with these changes."""
    example = ("-f", str(EXAMPLES / "values.yaml"), *COMPANY)
    text = helm("template ostoja", *example, *arguments, values=values)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def examples(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")))


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the container of each pod, with its name."""
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}:
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            yield container["name"], container


def secret_keys(container: Manifest, *, required: bool = False) -> dict[str, str]:
    """Return the key of the Secret behind each variable."""
    return {
        variable["name"]: reference["key"]
        for variable in container["env"]
        if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))
        and not (required and reference.get("optional"))
    }


def environment(
    manifests: list[Manifest], container: Manifest, secret: Mapping[str, str]
) -> dict[str, str]:
    """Return its variables as the kubelet makes them, but for those of the image.

    :raises KeyError: the Secret lacks a key
    """
    made: dict[str, str] = {}
    for source in container["envFrom"]:
        made |= find(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container["env"]:
        if "value" in variable:
            made[variable["name"]] = re.sub(
                r"\$\((\w+)\)", lambda found: made[found[1]], variable["value"]
            )
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            if reference["key"] in secret or not reference.get("optional"):
                made[variable["name"]] = secret[reference["key"]]
    return made


def write_files(manifests: list[Manifest], component: str, folder: Path) -> None:
    """Write the files of /app/config as a pod of this component sees them."""
    (spec,) = (
        manifest["spec"]["template"]["spec"]
        for manifest in manifests
        if manifest["kind"] in {"Deployment", "StatefulSet", "Job"}
        and manifest["metadata"]["name"].endswith(f"-{component}")
    )
    (volume,) = (each["configMap"] for each in spec["volumes"] if each["name"] == "config")
    config_map = find(manifests, "ConfigMap", volume["name"])
    assert {item["key"] for item in volume["items"]} == config_map["data"].keys()
    for item in volume["items"]:
        path = folder / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config_map["data"][item["key"]], encoding="utf-8")
