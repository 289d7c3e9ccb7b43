"""`make lock` where a registry answers, and where it stops half way; `docker` here is a script."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.up.environment import ROOT

DOCKER = '#!/bin/sh\n[ "$4" != "$MISSING" ] && echo sha256:of-$4\n'
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
IMAGES = {
    name: service["image"]
    for name, service in COMPOSE["services"].items()
    if not service["image"].startswith("ostoja:")
}


def locked(folder: Path, missing: str = "") -> Path:
    for name in ("docker-compose.yml", "deploy/Dockerfile", "requirements/lock"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name, script in (("docker", DOCKER), ("uv", "#!/bin/sh\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    shell = {"PATH": f"{folder}:/usr/bin:/bin", "MISSING": missing}
    subprocess.run([folder / "requirements" / "lock"], env=shell, check=True, capture_output=True)
    return folder / "deploy" / "images.yml"


def test_every_image_is_pinned_by_digest(tmp_path: Path) -> None:
    services = yaml.safe_load(locked(tmp_path).read_text())["services"]
    base = services.pop("setup")["build"]["args"]["PYTHON_IMAGE"]
    name, _, digest = base.partition("@")
    assert (name[:9], digest) == ("python:3.", f"sha256:of-{name}")
    assert {name: each["image"] for name, each in services.items()} == {
        name: f"{image}@sha256:of-{image}" for name, image in IMAGES.items()
    }


@pytest.mark.parametrize("missing", IMAGES.values())
def test_nothing_is_written_if_one_is_not_found(tmp_path: Path, missing: str) -> None:
    assert not locked(tmp_path, missing).exists()
