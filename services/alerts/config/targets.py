"""Reads alerts.toml into frozen, typed targets and routes; reports every fault at once."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, Union

import jinja2
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from libs.common.process.config_file import FaultError, Where, did_you_mean
from libs.domain import shipped
from services.alerts.channels.channel import SECTIONS, FromEnv, Part, Target
from services.alerts.channels.templates import Templates
from services.alerts.config.cases import ALWAYS, CaseSections
from services.alerts.messages import ESCALATION, STAFF_MAIL
from services.alerts.rules.case import Rules
from services.alerts.rules.heartbeats import Schedule


class Dedup(Part):
    window: float = Field(300, ge=0, le=24 * 3600)


if TYPE_CHECKING:
    AnyTarget = Target
else:
    AnyTarget = Annotated[Union[tuple(SECTIONS)], Field(discriminator="channel")]  # noqa: UP007
TargetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]


class Config(CaseSections):
    routes: dict[str, tuple[str, ...]]
    targets: dict[TargetName, AnyTarget]
    dedup: Dedup = Dedup()
    _settings: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, tuple[str, ...]]:
        """Where each target's address and credentials are set."""
        return self._settings

    @model_validator(mode="after")
    def _routes_name_targets(self) -> Self:
        reserved = self.targets.keys() & {
            "intake",
            "epoch",
            "occurred",
            "erasures",
            "pings",
            "requests",
            UNROUTED,
        }
        if reserved:
            raise ValueError(f"reserved target names: {', '.join(sorted(reserved))}")
        for event_type, names in self.routes.items():
            for name in names:
                self._check_named(name, "routes", event_type)
        return self

    def _check_named(self, name: str, *where: str) -> None:
        if name not in self.targets:
            meant = did_you_mean(name, list(self.targets))
            raise FaultError(where, f"no target is named {name}{meant}")

    @model_validator(mode="after")
    def _a_fallback_is_a_target_without_one(self) -> Self:
        # So there is no cycle, and an alert falls back once at most.
        for name, target in self.targets.items():
            if target.fallback is None:
                continue
            where = ("targets", name, "fallback")
            self._check_named(target.fallback, *where)
            if self.targets[target.fallback].fallback is not None:
                raise FaultError(where, f"{target.fallback} has a fallback itself")
        return self

    @property
    def rules(self) -> Rules:
        return Rules(
            policies={event: section.policy for event, section in self.answers.items()},
            hours={name: self.hours_of(name) for name in (*self.hours, ALWAYS)},
            people={key: each.person for key, each in self.people.items()},
            heartbeats={
                event: Schedule(each.within.total_seconds(), hours=self.hours_of(each.hours))
                for event, each in self.heartbeats.items()
            },
            needs={name: target.needs for name, target in self.targets.items()},
        )

    def route(self, event_type: str, target: str | None) -> tuple[str, ...]:
        """Return the targets of an alert, each once; empty without a matching route."""
        if target is not None:
            return (target,) if target in self.targets else ()
        if event_type == STAFF_MAIL:  # to a mailbox, whatever a pattern of [routes] says
            mail = (name for name, each in self.targets.items() if each.once)
            return tuple(mail)[:1]
        return tuple(
            dict.fromkeys(
                name
                for pattern, names in self.routes.items()
                if fnmatchcase(event_type, pattern)
                for name in names
            )
        )


UNROUTED = "unrouted"  # stands for the target of an alert without a route


def load(path: Path, env: Mapping[str, str]) -> tuple[Config, Templates]:
    """Read the file and every template it names.

    :raises SystemExit: naming each fault, never a value
    """
    file = shipped.read(path, "alerts")
    faults: list[str] = []
    resolved = _resolve(
        file.whole, env, (), lambda where, text: faults.append(file.fault(where, text))
    )
    config = None
    if not faults:
        try:
            config = Config.model_validate(resolved)
        except ValidationError as error:
            faults += file.faults(error, Config)
    if config is not None and not config.route(ESCALATION, None):
        text = f"none for {ESCALATION}: no one would be notified of failures"
        faults.append(file.fault(["routes"], text))
    if config is not None:
        found = config.case_faults(lambda event: config.route(event, None), config.targets)
        faults += [file.fault(where, text) for where, text in found]
    templates = Templates(path.parent / "templates")
    for name, target in config.targets.items() if config else ():
        for event_type, template in target.templates.items():
            try:
                templates.add(name, event_type, template)
            except jinja2.TemplateError as error:
                where = ("targets", name, "templates", event_type)
                faults.append(file.fault(where, f"{template}: {error}"))
    if config is None or faults:
        raise SystemExit("\n".join(faults))
    for name, target in config.targets.items():
        raw = file.whole["targets"][name]
        config._settings[name] = tuple(  # noqa: SLF001 - they are not in the file
            raw[each]["env"] if isinstance(raw[each], dict) else f"targets.{name}.{each}"
            for each in target.identity
            if each in raw
        )
    return config, templates


def _resolve(
    value: Any, env: Mapping[str, str], where: Where, fault: Callable[[Where, str], None]
) -> Any:
    """Replace each `{ env = "NAME" }` by the environment's value."""
    if not isinstance(value, dict):
        return value
    if "env" not in value:
        return {key: _resolve(item, env, (*where, key), fault) for key, item in value.items()}
    name = str(value["env"])
    found = env.get(name, "")
    if not found and (file := env.get(f"{name}_FILE")):
        try:
            found = Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            fault(where, f"{name}_FILE: {error}")
            return FromEnv("")
    if not found and "default" not in value:
        fault(where, f"the environment has no {name}{did_you_mean(name, list(env))}")
    return FromEnv(found or value.get("default", ""))
