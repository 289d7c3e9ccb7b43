from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.common.process.config_file import ConfigFile, FaultError


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '[targets.slack]\nchannel = "slack"\n\nretry_delay = [1]\n',
            "shape.toml:4: targets.slack.retry_delay: is not known; did you mean retry_delays?",
        ),
        (
            '# two\n[targets.slack]\nchannel = "slak"\n',
            "shape.toml:2: targets.slack: 'slak' is none of slack, mail; did you mean slack?",
        ),
        (
            '[targets.x]\nchanel = "slack"\n',
            "shape.toml:1: targets.x: 'channel' is missing",
        ),
        (
            'route = "x"\n[targets.x]\nchannel = "mail"\n',
            "shape.toml:2: targets.x.host: is missing",
        ),
        (
            "rules = [\n  { points = 1 },\n  { points = 2, at_lest = 3 },\n]\n",
            "shape.toml:3: rules.1.at_lest: is not known; did you mean at_least?",
        ),
        (
            'text = """\nroute = "no key"\n"""\nroute = 5\n',
            "shape.toml:4: route: Input should be a valid string",
        ),
        (
            'route = "slak"\n[targets.slack]\nchannel = "slack"\n',
            "shape.toml:1: route: no target is named slak",
        ),
        ('text = "a"\nroute = "b\n', "shape.toml:2: Illegal character '\\n'"),
        ("zzz = 1\n", "shape.toml:1: zzz: is not known"),
    ],
)
def test_a_fault_is_reported_once_with_line_and_key(tmp_path: Path, text: str, told: str) -> None:
    assert faults(tmp_path, text) == [told]


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, 'tex = "a"\n[[rules]]\n[[rules]]\npoints = "many"\n')
    assert [fault.split(": ")[1] for fault in found] == ["rules.0.points", "rules.1.points", "tex"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"shape\.toml: No such file"):
        ConfigFile(tmp_path / "shape.toml")
