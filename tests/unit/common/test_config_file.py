import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.common.process.config_file import ConfigFile, FaultError

FAULTS = Path(__file__).with_name("config_file.toml").read_text(encoding="utf-8")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Slack(_Part):
    channel: Literal["slack"]
    retry_delays: list[int] = [300]
    breaker: dict[str, int] = {}


class Mail(_Part):
    channel: Literal["mail"]
    host: str


class Rule(_Part):
    points: int
    at_least: int | None = None


class Shape(_Part):
    targets: dict[str, Annotated[Slack | Mail, Field(discriminator="channel")]] = {}
    rules: list[Rule] = []
    text: str = ""
    route: str = "slack"

    @model_validator(mode="after")
    def _route_is_a_target(self) -> Self:
        if self.targets and self.route not in self.targets:
            raise FaultError(["route"], f"no target is named {self.route}")
        return self


def faults(folder: Path, text: str) -> list[str]:
    path = folder / "shape.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        ConfigFile(path).load(Shape)
    return str(stopped.value).replace(f"{folder}/", "").splitlines()


@pytest.mark.parametrize("fault", tomllib.loads(FAULTS)["fault"], ids=lambda row: row["told"])
def test_a_fault_is_reported_once_with_line_and_key(tmp_path: Path, fault: dict[str, str]) -> None:
    assert faults(tmp_path, fault["text"]) == [f"shape.toml:{fault['told']}"]


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, 'tex = "a"\n[[rules]]\n[[rules]]\npoints = "many"\n')
    assert [fault.split(": ")[1] for fault in found] == ["rules.0.points", "rules.1.points", "tex"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"shape\.toml: No such file"):
        ConfigFile(tmp_path / "shape.toml")
