"""What every channel shares: its section of alerts.toml, its sender, and how both are found.

A channel is one module of this folder: its `Target`, and the class that sends. Nothing else names
it.
"""

import math
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from yarl import URL

from services.alerts.channels.network import Network
from services.alerts.channels.templates import Templates
from services.alerts.rules.delivery import Claimed, Outcome, Policy

Seconds = Annotated[float, Field(gt=0, le=30 * 24 * 3600, allow_inf_nan=False)]


TOGETHER_SECONDS = 200.0


class FromEnv(str):
    """A value from the environment, which may therefore be a secret."""

    __slots__ = ()


def _only_from_env(value: Any) -> Any:
    if not isinstance(value, FromEnv):
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


Secret = Annotated[SecretStr, BeforeValidator(_only_from_env)]
SecretUrl = Annotated[Secret, AfterValidator(_secret_http_url)]
Url = Annotated[str, AfterValidator(_http_url)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class BreakerOptions(Part):
    fail_max: int = Field(5, ge=1)
    reset_timeout: Seconds = 60


class Target(Part):
    """The options that every channel has; config/alerts.toml explains them."""

    once: ClassVar[bool] = False
    """Whether it is for mails that need a permit, which are sent at most once (protocol B)."""
    needs: ClassVar[str | None] = None
    """The contact that a person must have to be asked here, as [people] names it."""
    read_by_people: ClassVar[bool] = True
    waits_in_ledger: ClassVar[bool] = False
    """Whether a failed attempt has no message until its next one is due."""
    identity: ClassVar[tuple[str, ...]] = ("url", "token")
    """The options that a target which refuses us may object to."""

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
    def answerable(self) -> bool:
        """Whether a question here can be answered: by a button, or by that person's link."""
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

    def together(self, processes: int) -> int:
        """Rows of one work message, at most.

        What a process holds is sent within some minutes, also if each attempt takes all of its
        time-out: RabbitMQ closes a channel with a message unacknowledged for thirty.

        :param processes: that share the concurrency; 0: one of them reads no such message
        """
        if not processes or self.rate_per_minute is not None:
            return 1
        return max(1, min(self.concurrency // processes, int(TOGETHER_SECONDS / self.timeout)))

    @model_validator(mode="after")
    def _later_delays_have_a_queue(self) -> Self:
        # Such a delay's queue is named by its whole seconds; the first delay is .retry's policy.
        others = {*self.retry_delays, *self.wait_tiers} - {self.retry_delays[0]}
        if any(delay < 1 or delay != int(delay) for delay in others):
            raise ValueError("every delay that differs from the first must be whole seconds")
        return self

    @model_validator(mode="after")
    def _parking_outlasts_the_lease(self) -> Self:
        # Otherwise a duplicate parked in .retry could return, and be parked again, forever before
        # the lease of the worker in flight ends (protocols.md, last paragraph of B).
        if not self.waits_in_ledger and self.retry_delays[0] < self.lease:
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
        # A secret may be two, of which a response may quote one.
        return tuple(
            dict.fromkeys(part for each in found for part in (each, *each.split()) if part)
        )


T = TypeVar("T", bound=Target)


class Channel(Protocol):
    async def send(self, job: Claimed) -> Outcome:
        """Make one attempt, within the target's time-out.

        :raises Exception: the template or the channel cannot send this payload; whatever the
            target does is an outcome instead
        """
        ...

    async def close(self) -> None: ...


class BaseChannel(Channel, Generic[T]):
    """Sends to one target."""

    def __init_subclass__(cls, section: type[Target] | None = None) -> None:
        """:param section: of a provider, whose channel this is"""
        if section is not None:
            SECTIONS[section] = cls

    def __init__(self, name: str, target: T, templates: Templates, network: Network) -> None:
        self._name = name
        self._target = target
        self._templates = templates
        self._network = network

    async def close(self) -> None:
        pass


SECTIONS: Final[dict[type[Target], type[BaseChannel[Any]]]] = {}
"""The channel of each section; `channels` has imported every one."""
