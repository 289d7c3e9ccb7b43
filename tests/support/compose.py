"""`docker compose` on a project, an .env and ports of its own: it meets no other running stack."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.up import environment
from tests.support.ports import Ports
from tests.support.prometheus import quick_prometheus
from tests.support.stack import PATIENCE, PATIENT_MAIL, UNLIMITED, quick_alerts_config

FILES = ("docker-compose.yml", "tests/fullstack/quick.yml")
PUBLISHED = ("GATEWAY_PORT", "RABBITMQ_UI_PORT", "SANDBOX_PORT", "SANDBOX_MAIL_PORT")
SETTINGS = {
    **UNLIMITED,
    **PATIENCE,
    "ALERTS_RECONCILE_SECONDS": "2",
}


def docker(*arguments: str) -> str:
    return subprocess.check_output(["docker", *arguments], text=True)


def engine_answers() -> bool:
    try:
        docker("info", "--format", "{{.ServerVersion}}")
        docker("compose", "version")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class Compose:
    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.project = folder.name
        self._env_file = folder / ".env"
        environment.ensure(self._env_file, data_exists=False, trying=True)
        config = folder / "config"
        environment.ensure_config(config)
        quick_alerts_config(config, PATIENT_MAIL)
        settings = SETTINGS | {name: str(ports.take()) for name in (*PUBLISHED, "PROMETHEUS_PORT")}
        # Whoever reads .env in a shell (`. ./.env`, as the runbooks do) means this project.
        settings["COMPOSE_PROJECT_NAME"] = self.project
        settings["QUICK_CONFIG"] = str(config)
        settings["QUICK_PROMETHEUS"] = str(quick_prometheus(folder))
        with self._env_file.open("a", encoding="utf-8") as file:
            file.writelines(f'{name}="{value}"\n' for name, value in settings.items())
        self.values = environment.parse(self._env_file.read_text(encoding="utf-8"))

    def __call__(self, *arguments: str, quiet: bool = True) -> str:
        """Run `docker compose ...`; what it printed.

        :raises RuntimeError: it failed; with the end of what it said
        """
        # A variable of the shell would win over the file.
        inherited = {name: value for name, value in os.environ.items() if name not in self.values}
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=environment.ROOT,
            env={**inherited, **self.shell},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"docker compose {arguments[0]}: {(done.stderr or '')[-3000:]}")
        return done.stdout

    @property
    def shell(self) -> dict[str, str]:
        """What `docker compose`, plainly typed, must find to mean this project."""
        return {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": ":".join(str(environment.ROOT / name) for name in FILES),
            "COMPOSE_ENV_FILES": str(self._env_file),
            "OSTOJA_VERSION": self.project,
        }

    @contextmanager
    def changed(self, **settings: str) -> Iterator[None]:
        """Have other settings in .env; who is started from now on gets them."""
        text, values = self._env_file.read_text(encoding="utf-8"), dict(self.values)
        with self._env_file.open("a", encoding="utf-8") as file:
            file.writelines(f'{name}="{value}"\n' for name, value in settings.items())
        self.values.update(settings)
        yield
        self._env_file.write_text(text, encoding="utf-8")
        self.values.clear()
        self.values.update(values)

    def containers(self, service: str) -> list[str]:
        return self("ps", "--all", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        described: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return described

    def logs(self) -> str:
        text = self("logs", "--no-color", "--tail", "60", "setup", *environment.SERVICES)
        lines = text.replace("\x1b[2K", "").splitlines()  # which Compose writes even into a pipe
        return "\n".join(line for line in lines if "http.answered" not in line)


@contextmanager
def running_compose(folder: Path, ports: Ports) -> Iterator[Compose]:
    compose = Compose(folder, ports)
    try:
        compose("build")
        try:
            compose("up", "--detach", "--wait", "--wait-timeout", "240")
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{compose.logs()[-6000:]}") from None
        yield compose
    finally:
        everything = ("--profile", "*")
        compose(*everything, "down", "--volumes", "--remove-orphans", "--timeout", "40")
        subprocess.run(
            ["docker", "image", "rm", f"ostoja:{compose.project}"], capture_output=True, check=False
        )
