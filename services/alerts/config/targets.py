"""Reads alerts.toml into frozen, typed targets and routes; reports every fault at once."""

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import jinja2
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook
from yarl import URL

from libs.common.process.config_file import ConfigFile, FaultError, Where, did_you_mean
from services.alerts.config.cases import CaseSections
from services.alerts.config.templates import Templates
from services.alerts.messages import ESCALATION, STAFF_MAIL
from services.alerts.rules.delivery import Policy

Seconds = Annotated[float, Field(gt=0, le=30 * 24 * 3600, allow_inf_nan=False)]


class _FromEnv(str):
    """A value from the environment, which may therefore be a secret."""

    __slots__ = ()


def _only_from_env(value: Any) -> Any:
    if not isinstance(value, _FromEnv):
        raise ValueError('give a secret as { env = "NAME" }')  # noqa: TRY004 - pydantic needs it
    return value


def _http_url(value: str) -> str:
    try:
        url = URL(value)
    except ValueError:  # its text quotes the URL
        raise ValueError("not an http(s) URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("not an http(s) URL")
    return value


def _secret_http_url(value: SecretStr) -> SecretStr:
    _http_url(value.get_secret_value())
    return value


def _signing_key(value: SecretStr) -> SecretStr:
    try:
        Webhook(value.get_secret_value())
    except (ValueError, EmptyWebhookSecretError):
        raise ValueError("must be whsec_ and base64, as Standard Webhooks says") from None
    return value


Secret = Annotated[SecretStr, BeforeValidator(_only_from_env)]
SecretUrl = Annotated[Secret, AfterValidator(_secret_http_url)]
Url = Annotated[str, AfterValidator(_http_url)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class BreakerOptions(_Part):
    fail_max: int = Field(5, ge=1)
    reset_timeout: Seconds = 60


class Target(_Part):
    """The options that every channel has; config/alerts.toml explains them."""

    channel: str
    timeout: Seconds = 10
    margin: Seconds = 5
    concurrency: int = Field(8, ge=1, le=256)
    retry_delays: tuple[Seconds, ...] = Field((300.0,) * 5, min_length=1, max_length=50)
    wait_tiers: tuple[Seconds, ...] = (10, 60)
    max_age: Seconds = 72 * 3600
    breaker: BreakerOptions = BreakerOptions()
    rate_per_minute: int | None = Field(None, ge=1)
    fallback: str | None = None
    templates: dict[str, str] = {}

    @property
    def policy(self) -> Policy:
        return Policy(self.retry_delays, self.wait_tiers, self.max_age)

    @property
    def lease(self) -> float:
        """Seconds for which a claimed row belongs to its worker."""
        return self.timeout + self.margin

    @property
    def needs(self) -> str | None:
        """What a person must have to be asked here, as [people] names it."""
        return None

    @property
    def answerable(self) -> bool:
        """Whether a question here can be answered: by a button, or a link of that person."""
        return self.needs is not None

    @property
    def prefetch(self) -> int:
        """Messages in flight: one being sent and one being recorded for each slot."""
        taken = 2 * self.concurrency
        # Messages that wait for their turn stay unacknowledged, so take no more than the target's
        # own rate lets go within about one time-out.
        if self.rate_per_minute is None:
            return taken
        return min(taken, math.ceil(self.rate_per_minute / 60 * self.timeout))

    @model_validator(mode="after")
    def _later_delays_have_a_queue(self) -> Self:
        # Such a delay's queue is named by its whole seconds; the first delay is .retry's policy.
        others = {*self.retry_delays, *self.wait_tiers} - {self.retry_delays[0]}
        if any(delay < 1 or delay != int(delay) for delay in others):
            raise ValueError("every delay that differs from the first must be whole seconds")
        return self

    @model_validator(mode="after")
    def _parking_outlasts_the_lease(self) -> Self:
        # Otherwise a duplicate parked in .retry could return, and be parked again, for ever before
        # the lease of the worker in flight ends (protocols.md, last paragraph of B).
        if self.retry_delays[0] < self.lease:
            raise ValueError(
                f"retry_delays[0] ({self.retry_delays[0]:g} s) must be at least the lease "
                f"({self.lease:g} s: time-outs and margin together)"
            )
        return self

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, to be redacted from what is stored or logged."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        found = [v.get_secret_value() for v in fields.values() if isinstance(v, SecretStr)]
        found += [v for name, v in fields.items() if name == "url" and isinstance(v, str)]
        return tuple(filter(None, found))


class SlackTarget(Target):
    """A webhook, or an app with a bot token, whose messages have buttons."""

    channel: Literal["slack"]
    url: SecretUrl = SecretStr("")
    token: Secret = SecretStr("")
    post_to: str = Field("", pattern=r"^([CGD][A-Z0-9]{2,20})?$")
    team: str = Field("", pattern=r"^([TE][A-Z0-9]{2,20})?$")
    api: Url = "https://slack.com/api"

    @property
    def needs(self) -> str | None:
        return "slack"

    @property
    def answerable(self) -> bool:
        return bool(self.token.get_secret_value())

    @model_validator(mode="after")
    def _is_a_webhook_or_an_app(self) -> Self:
        app = (self.token.get_secret_value(), self.post_to, self.team)
        if not (all(app) if not self.url.get_secret_value() else not any(app)):
            raise ValueError("needs url (a webhook), or token, post_to and team (an app)")
        return self


class WebhookTarget(Target):
    channel: Literal["webhook"]
    url: SecretUrl
    secret: Annotated[Secret, AfterValidator(_signing_key)]


class MondayTarget(Target):
    channel: Literal["monday"]
    url: Url
    token: Secret
    board: str = Field(pattern=r"^[0-9]{1,20}$")


class SmsTarget(Target):
    channel: Literal["sms"]
    url: Url
    token: Secret
    to: str

    @property
    def needs(self) -> str | None:
        return "phone"


class AppriseTarget(Target):
    channel: Literal["apprise"]
    url: Secret  # of any service that Apprise supports; see its wiki


class EmailTarget(Target):
    channel: Literal["email"]
    host: str
    port: int = Field(ge=1, le=65535)
    username: str = ""
    password: Annotated[SecretStr, BeforeValidator(_only_from_env)] = SecretStr("")
    tls: Literal["none", "starttls", "tls"] = "starttls"
    sender: str
    to: str
    timeout: Seconds = 12
    ask_timeout: Seconds = 5  # for consent's reply to a permit request
    permit: Seconds = 20  # how long a permit is valid; consent decides it
    dot_deadline: Seconds = 10  # after asking; later than that, no terminator is written
    permit_patience: Seconds = 24 * 3600  # without a permit; then the mail is cancelled

    @property
    def needs(self) -> str | None:
        return "email"

    @property
    def lease(self) -> float:
        return self.ask_timeout + self.timeout + self.margin

    @model_validator(mode="after")
    def _a_send_fits_into_its_permit(self) -> Self:
        if self.timeout + self.margin >= self.permit:
            raise ValueError(
                f"timeout + margin ({self.timeout + self.margin:g} s) must be below "
                f"permit ({self.permit:g} s)"
            )
        if self.dot_deadline >= self.permit:
            raise ValueError("dot_deadline must be below permit")
        return self


class Dedup(_Part):
    window: float = Field(300, ge=0, le=24 * 3600)


AnyTarget = Annotated[
    SlackTarget | WebhookTarget | MondayTarget | SmsTarget | AppriseTarget | EmailTarget,
    Field(discriminator="channel"),
]
TargetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]


class Config(CaseSections):
    routes: dict[str, tuple[str, ...]]
    targets: dict[TargetName, AnyTarget]
    dedup: Dedup = Dedup()
    _settings: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, tuple[str, ...]]:
        """By target: where its address, and what we log in with, are set."""
        return self._settings

    @model_validator(mode="after")
    def _routes_name_targets(self) -> Self:
        reserved = self.targets.keys() & {"intake", "epoch", "erasures", "requests", UNROUTED}
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

    def route(self, event_type: str, target: str | None) -> tuple[str, ...]:
        """Return the targets of an alert, each once; empty without a matching route."""
        if target is not None:
            return (target,) if target in self.targets else ()
        if event_type == STAFF_MAIL:  # to a mailbox, whatever a pattern of [routes] says
            mail = (name for name, each in self.targets.items() if isinstance(each, EmailTarget))
            return tuple(mail)[:1]
        return tuple(
            dict.fromkeys(
                name
                for pattern, names in self.routes.items()
                if fnmatchcase(event_type, pattern)
                for name in names
            )
        )


# What a target that refuses us may object to.
_IDENTITY: Final = ("url", "token", "secret", "board", "post_to", "username", "password", "sender")


def _settings(name: str, raw: Mapping[str, Any]) -> tuple[str, ...]:
    given = [(field, raw[field]) for field in _IDENTITY if field in raw]
    return tuple(
        value["env"] if isinstance(value, dict) else f"targets.{name}.{field}"
        for field, value in given
    )


UNROUTED = "unrouted"  # stands for the target of an alert without a route


def load(path: Path, env: Mapping[str, str]) -> tuple[Config, Templates]:
    """Read the file and every template it names.

    :raises SystemExit: naming each fault, never a value
    """
    file = ConfigFile(path)
    faults: list[str] = []
    resolved = _resolve(
        file.raw, env, (), lambda where, text: faults.append(file.fault(where, text))
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
    for name, raw in file.raw["targets"].items():
        config._settings[name] = _settings(name, raw)  # noqa: SLF001 - they are not in the file
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
            return _FromEnv("")
    if not found and "default" not in value:
        fault(where, f"the environment has no {name}{did_you_mean(name, list(env))}")
    return _FromEnv(found or value.get("default", ""))
