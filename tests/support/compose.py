"""`docker compose` on a project, an .env and ports of its own: it meets no other running stack."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.local import environment
from tests.support.ports import Ports
from tests.support.stack import quick_alerts_config

FILES = ("--file", "docker-compose.yml", "--file", "tests/fullstack/quick.yml")
PUBLISHED = (
    "GATEWAY_PORT",
    "RABBITMQ_UI_PORT",
    "SANDBOX_PORT",
    "SANDBOX_MAIL_PORT",
    "PROMETHEUS_PORT",
)
SETTINGS = {
    # Limits have tests of their own; here they would only count the tests' calls.
    "CHAT_RATE_LIMIT": "1000000 per minute",
    "API_RATE_LIMIT_MINUTE": "1000000 per minute",
    "API_RATE_LIMIT_HOUR": "1000000 per hour",
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
        self.project = folder.name
        self._env_file = folder / ".env"
        environment.ensure(self._env_file, data_exists=False)
        config = folder / "config"
        shutil.copytree(environment.ROOT / "config", config)
        quick_alerts_config(config)
        settings = SETTINGS | {name: str(ports.take()) for name in PUBLISHED}
        settings["QUICK_CONFIG"] = str(config)
        with self._env_file.open("a", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())
        self.values = environment.parse(self._env_file.read_text(encoding="utf-8"))

    def __call__(self, *arguments: str, quiet: bool = True) -> str:
        """Run `docker compose ...`; what it printed.

        :raises RuntimeError: it failed; with the end of what it said
        """
        done = subprocess.run(
            ["docker", "compose", *FILES, "--env-file", str(self._env_file), *arguments],
            cwd=environment.ROOT,
            env={**self._shell(), "COMPOSE_PROJECT_NAME": self.project},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"docker compose {arguments[0]}: {(done.stderr or '')[-3000:]}")
        return done.stdout

    def _shell(self) -> Mapping[str, str]:
        """A variable of the shell would win over the file."""
        inherited = {name: value for name, value in os.environ.items() if name not in self.values}
        return {**inherited, "OSTOJA_VERSION": self.project}

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
