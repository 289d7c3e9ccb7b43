"""Installs the distribution's servers and the virtual environment."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.up.process import ServerError
from deploy.up.servers import postgres_binaries, rabbitmq_home, redis_binary
from libs.common import beside

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PACKAGES: dict[str, dict[str, Any]] = beside.toml(__file__, "packages.toml")


class MachineError(Exception):
    """The text is shown to the user, before anything was changed."""


def prepare(*, tests: bool = False, browser: bool = False, cluster: bool = False) -> None:
    """Install missing packages.

    :param tests: also install the checkers of models and alert rules, if available
    :param cluster: also install what several hosts need
    """
    missing = _missing_packages()
    if cluster:
        missing += _absent(PACKAGES["cluster"] | (PACKAGES["faults"] if tests else {}))
    if tests and _may_install():
        missing += _absent(PACKAGES["checkers"])
    if browser:
        debian = "\nID=debian" in Path("/etc/os-release").read_text(encoding="utf-8")
        missing += [] if chromium() else ["chromium"]
        missing += _absent(PACKAGES["browsers"]) if debian and shutil.which("npm") else []
    if missing:
        _install(missing)
    _make_venv()
    _link_command()


def chromium() -> str | None:
    """Find a browser for the page tests, by the names that distributions use."""
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


def _absent(wanted: Mapping[str, str]) -> list[str]:
    """Return the packages that are not there."""
    return [
        package
        for package, path in wanted.items()
        if not (Path(path).exists() if path.startswith("/") else shutil.which(path))
    ]


def _missing_packages() -> list[str]:
    missing = []
    for package, find in (
        ("postgresql", postgres_binaries),
        ("redis-server", redis_binary),
        ("rabbitmq-server", rabbitmq_home),
    ):
        try:
            find()
        except ServerError:
            missing.append(package)
    # Debian's Python comes without it; an existing .venv that works does not need it.
    if importlib.util.find_spec("ensurepip") is None and not PYTHON.exists():
        missing.insert(0, f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
    return missing


def _may_install() -> bool:
    is_root = os.geteuid() == 0 or shutil.which("sudo") is not None
    return is_root and shutil.which("apt-get") is not None


def _install(packages: list[str]) -> None:
    names = " ".join(packages)
    elsewhere = "any machine with Docker can use `docker compose up`"
    if shutil.which("apt-get") is None:
        raise MachineError(
            f"this is not Debian: install {names} yourself (PostgreSQL >= 15, Redis >= 7, "
            f"RabbitMQ >= 4.0), or: {elsewhere}"
        )
    if not _may_install():
        raise MachineError(
            f"missing: {names}; without root or sudo, ask an administrator to install them, "
            f"or: {elsewhere}"
        )
    become_root = [] if os.geteuid() == 0 else ["sudo"]
    log = ROOT / ".local" / "log" / "install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _run([*become_root, "apt-get", "update"], log)
    for package in packages:
        _check_candidate(package)
    print(f"installing {names} (not started; the system's own servers stay unchanged)")
    _run([*become_root, "sh", str(ROOT / "deploy" / "up" / "install.sh"), *packages], log)


def _check_candidate(package: str) -> None:
    policy = subprocess.run(
        ["apt-cache", "policy", package],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout
    # The version may begin with an epoch, or be "(none)".
    found = re.search(r"Candidate: (?:\d+:)?((\d+)\S*)", policy)
    if found is None:
        raise MachineError(f"this distribution has no {package}; Debian 13 has it")
    oldest = PACKAGES["oldest"].get(package, 0)
    if int(found[2]) < oldest:
        raise MachineError(
            f"this distribution has {package} {found[1]}, but {oldest} or newer is needed: "
            "use Debian 13, or `docker compose up`"
        )


def _make_venv() -> None:
    if _venv_version() is None:
        print("creating the virtual environment .venv")
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)], None)
    version = _venv_version()
    lock = ROOT / "requirements" / f"dev-{'3.11' if version == '3.11' else '3.13'}.txt"
    wanted = hashlib.sha256(lock.read_bytes() + str(version).encode()).hexdigest()
    stamp = VENV / "installed"  # written last, so that an interrupted run installs again
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing the locked dependencies of {lock.relative_to(ROOT)}")
    log = ROOT / ".local" / "log" / "install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # --no-deps: the lock is the whole set. Each file is checked against its hash.
    arguments = ["--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
    _run([str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments], log)
    stamp.write_text(wanted)


def _link_command() -> None:
    """Put the `ostoja` command next to the Python that runs it."""
    command = VENV / "bin" / "ostoja"
    if not command.exists():
        command.unlink(missing_ok=True)  # it may be a dangling link
        command.symlink_to(ROOT / "deploy" / "ostoja.sh")


def _venv_version() -> str | None:
    """Return major.minor of the .venv's Python, if it works and is new enough."""
    code = "import sys, pip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [str(PYTHON), "-c", code], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    version = done.stdout.strip()
    new_enough = done.returncode == 0 and int(version.partition(".")[2]) >= 11
    return version if new_enough else None


def _run(argv: list[str], log: Path | None) -> None:
    """Run a command with its output in the log; show the end of it on failure."""
    done = subprocess.run(
        argv, stdin=None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if log is not None:
        with log.open("ab") as out:
            out.write(done.stdout)
    if done.returncode:
        tail = "\n".join(done.stdout.decode(errors="replace").splitlines()[-15:])
        raise MachineError(f"this failed ({done.returncode}): {' '.join(argv[:6])} …\n{tail}")
