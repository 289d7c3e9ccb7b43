"""`ostoja` installed alone, by pipx: no checkout, none of the services' packages."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ostoja
from deploy.up.environment import API_KEYS
from ostoja import where
from ostoja.app import app

ROOT = Path(__file__).parents[3]
NOT_THERE = ("deploy", "libs", "services", "psycopg2", "redis", "aio_pika", "yaml", "mcp")
BLOCKED = f"""
import sys
for name in {NOT_THERE}: sys.modules[name] = None
from ostoja.app import main
main()
"""


def installed(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    package = folder / "site" / "ostoja"
    if not package.exists():
        package.parent.mkdir()
        package.symlink_to(ROOT / "ostoja")
    return subprocess.run(
        [sys.executable, "-P", "-c", BLOCKED, *words],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "site"), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_version_is_the_project_s(tmp_path: Path) -> None:
    done = installed(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"ostoja {ostoja.__version__}\n"), done.stderr
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ostoja.__version__"}
    assert f"version: {ostoja.__version__}\n" in (
        ROOT / "services" / "gateway" / "openapi.yaml"
    ).read_text(encoding="utf-8")


def test_the_key_comes_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ADMIN_API_KEY='the key'\nGATEWAY_PORT=1\n")
    done = installed(tmp_path, "stats")
    assert done.returncode == 3, done.stderr
    assert "http://127.0.0.1:1 does not answer" in done.stderr


def test_check_says_where_to_run_it(tmp_path: Path) -> None:
    done = installed(tmp_path, "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "in its checkout, or in the container" in done.stderr


def test_mcp_says_how_to_install_what_it_needs(tmp_path: Path) -> None:
    done = installed(tmp_path, "mcp")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pipx install 'ostoja[mcp]'" in done.stderr


def test_doctor_asks_the_gateway_and_says_where_it_sees_more(tmp_path: Path) -> None:
    done = installed(tmp_path, "--json", "--url", "http://127.0.0.1:1", "doctor")
    elsewhere, gateway = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (1, "ostoja: 1 problem\n")
    assert (elsewhere["part"], elsewhere["status"]) == (".env", "unknown")
    assert "in its checkout, or in the container" in elsewhere["do"]
    assert (gateway["part"], gateway["status"]) == ("gateway", "wrong")


@pytest.mark.parametrize("command", ["check", "backup"])
def test_so_does_the_container_that_has_two_keys_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(where, "CHECKOUT", tmp_path)
    monkeypatch.setattr(os, "environ", dict.fromkeys(API_KEYS, "a key of sixteen letters"))
    done = CliRunner().invoke(app, [command])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "docker compose run --rm inspector doctor" in done.stderr
