"""What the console reads and sends: messages, the bodies of its API, and its refusals."""

from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from multidict import MultiMapping
from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from libs.common import beside
from libs.common.http.application import Model, Moment, Problem
from libs.common.messaging.consumer import Body
from libs.domain.email_address import Email
from libs.domain.limits import Limit
from libs.domain.limits import parse as parse_limit
from libs.domain.scopes import NOT_FOR_KEYS, Scope
from services.console.rules import ID, Role, expiry_fault


class RefusedError(Problem):
    """Nothing was changed."""

    fault, status, detail = "changed_meanwhile", 409, "nothing was changed"

    def __init__(self, fault: str = "", status: int = 0, detail: str = "", **shown: Any) -> None:
        """:param fault: a key of texts.toml, for pages
        :param detail: what programs read
        :param shown: what the page shows again
        """
        super().__init__(status or self.status, detail=detail or self.detail)
        self.fault, self.shown = fault or self.fault, shown


WHY: dict[str, dict[str, Any]] = beside.toml(__file__, "refusals.toml")
"""What RefusedError takes."""


class ActionRecord(Body):
    """An act at another service, whose only record this is."""

    id: UUID
    at: AwareDatetime
    actor_kind: Literal["staff", "key", "env"]
    actor_id: str
    actor_name: str | None = None
    roles: list[str] = Field([])
    client_address: str | None = None
    action: str
    object_kind: str
    object_ref: str
    reason: str | None = None
    request_id: str
    outcome: str
    count: int | None = None


def staff_mail(alert_id: UUID, payload: dict[str, Any], at: datetime) -> dict[str, Any]:
    return {
        "id": str(alert_id),
        "event_type": "staff.mail",
        "payload": payload,
        "target": None,
        "severity": "info",
        "dedup_key": None,
        "source": "console",
        "accepted_at": at.isoformat(),
        "once": None,
    }


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a network like 10.0.0.0/8") from None


def _expiry(at: datetime) -> datetime:
    if fault := expiry_fault(at, datetime.now(UTC)):
        raise ValueError(fault)
    return at


def _of_a_key(scope: Scope) -> Scope:
    if scope in NOT_FOR_KEYS:
        raise ValueError("no key may have this scope")
    return scope


def _plain(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be one line of text")
    return text.strip()


KeyScope = Annotated[Scope, Field(strict=False), AfterValidator(_of_a_key)]
Name = Annotated[str, Field(max_length=100), AfterValidator(_plain)]
Reason = Annotated[str, Field(min_length=3, max_length=500), AfterValidator(_plain)]
Expiry = Annotated[Moment, AfterValidator(_expiry)]
Networks = Annotated[list[Annotated[str, AfterValidator(_network)]], Field(max_length=20)]
Roles = Annotated[list[Annotated[Role, Field(strict=False)]], Field(min_length=1)]
Process = Annotated[str, Field(min_length=1, max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MOST_DIGESTS, MOST_PEOPLE = 4_000, 10_000
_REASON: TypeAdapter[str] = TypeAdapter(Reason)


def reason_in(form: MultiMapping[Any]) -> str | None:
    """Return the reason in a page's form; None if there is no valid one."""
    try:
        return _REASON.validate_python(str(form.get("reason", "")).strip())
    except ValidationError:
        return None


class CreateKey(Model):
    name: Name
    purpose: Reason
    owner: Name
    scopes: Annotated[list[KeyScope], Field(min_length=1)]
    expires_at: Expiry
    limits: Annotated[list[Limit], Field(max_length=2)] = Field([])
    networks: Networks = Field([])

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        spans = [parse_limit(text)[1] for text in self.limits]
        if len(set(spans)) < len(spans):
            raise ValueError("two limits of the same span")
        return self

    def columns(self) -> dict[str, Any]:
        return self.model_dump() | {"scopes": sorted(set(self.scopes))}


class RotateKey(Model):
    overlap_hours: Annotated[int, Field(ge=0, le=720)] = 24
    expires_at: Expiry | None = None


class Because(Model):
    reason: Reason


class AcceptRestore(Model):
    confirm: bool = False


class Link(Model):
    show_link: bool = False
    """Answer with the link instead of mailing it: for a person whom no mail reaches."""


class Invite(Link):
    email: Email
    name: Name
    roles: Roles
    language: Literal["pl", "en"] = "pl"


class SetRoles(Model):
    roles: Roles


class Used(Model):
    id: Annotated[str, Field(pattern=rf"^{ID.pattern}$")]
    at: Moment
    calls: Annotated[int, Field(ge=1)]


class Goodbye(Model):
    process: Process
    instance: Process
    """Tells a process from its successor of the same name."""


class Report(Goodbye):
    """What a gateway process has, and which keys it has seen since its last report."""

    epoch: Annotated[str, Field(max_length=100)] | None = None
    """None: the process has no keys yet."""
    version: Annotated[int, Field(ge=0, lt=2**53)] = 0
    wait: Annotated[float, Field(ge=0, le=20)] = 0
    """Seconds for which the answer may be delayed."""
    used: list[Used] = Field([], max_length=1_000)
    held: Annotated[list[Digest], Field(max_length=MOST_DIGESTS)] | None = None
    """The digests in force there, if it was told that this database was restored."""
    people: Annotated[dict[str, str], Field(max_length=MOST_PEOPLE)] | None = None
    """What it was told about people (people.standing), likewise."""
