"""A submission of a form, as a program sends it (JSON) and as a page's plain form does."""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, Field, field_validator

from libs.common.http import plain_form
from libs.common.http.application import Model, Problem
from libs.domain.company import Wording
from libs.domain.forms import LANGUAGES, MOST_FIELDS, Read
from services.gateway.door.clients import Client
from services.gateway.intake.messages import NAMESPACE
from services.gateway.intake.sessions import is_strong

LEAD_SUBMIT = "lead.submit"
MOST_BYTES = 64 * 1024
MOST_PARTS = MOST_FIELDS + 20
"""A plain form's fields, its consents, and the values under Ostoja's own names."""
CONSENT = "consent."

Text = Annotated[str, Field(max_length=MOST_BYTES)]


class LeadRequest(Model):
    form: Annotated[str, Field(max_length=60)]
    form_version: Annotated[str, Field(max_length=60)] | None = None
    language: Literal["pl", "en"]
    session_id: Annotated[str, Field(max_length=200)] | None = None
    fields: dict[str, Annotated[str | int | float, AfterValidator(str)]]
    consents: dict[str, Annotated[str, Field(max_length=64)]] = Field(default_factory=dict)
    notice_version: Annotated[str, Field(max_length=60)] | None = None
    issued: Annotated[str, Field(max_length=500)] | None = None
    trap: Text | None = None
    page: Annotated[str, Field(max_length=2000)] | None = None
    agreed_at: AwareDatetime | None = None
    source: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Where the person agreed; for programs with the service key."""

    @field_validator("page")
    @classmethod
    def _says_nothing_of_the_person(cls, page: str | None) -> str | None:
        return without_query(page)

    @field_validator("session_id")
    @classmethod
    def _cannot_be_guessed(cls, session_id: str | None) -> str | None:
        return session_id if session_id and is_strong(session_id) else None

    def submission(self, key: str, body: bytes) -> "Submission":
        return Submission.model_construct(**dict(self), key=_with_content(key, body))


class Submission(LeadRequest):
    """What either sent, and what only a header or a plain form has. Checked before it is made."""

    fields: dict[str, str]  # type: ignore[assignment]
    key: str
    """The sender's own, or the UTC day, and the content: other content is another lead."""
    proof: str | None = None
    """That a challenge was solved; of a plain form, that its sender pressed the button again."""
    sure: str | None = None
    """An address that looks mistyped, which its sender was asked about."""

    @property
    def lead_id(self) -> uuid.UUID:
        """Fixed before the first try, so that a repeated request is the same lead."""
        return uuid.uuid5(NAMESPACE, f"lead\n{self.form}\n{self.key}")

    def message(
        self,
        found: Read,
        wordings: Sequence[Wording],
        not_recorded: Sequence[str],
        suspicion: str | None,
        client: Client,
        user_agent: str | None,
        at: datetime,
    ) -> dict[str, Any]:
        """Make `lead.submit`; its golden form is tests/contracts/lead.submit.json.

        It holds the wordings themselves: whatever forms.toml says when it is read, what was shown
        is recorded.
        """
        by_key = self.source is not None
        return {
            "id": str(self.lead_id),
            **picked(self, "form", "form_version", "language", "session_id"),
            "fields": found.values,
            "facts": found.facts,
            "consents": [
                picked(wording, "purpose", "version", "language", "text") for wording in wordings
            ],
            "consents_not_recorded": not_recorded,
            **picked(self, "notice_version", "page", "source"),
            "agreed_at": self.agreed_at and self.agreed_at.isoformat(),
            "suspicion": suspicion,
            # A program's address says nothing about the person.
            "client_address": None if by_key else client.ip,
            "client_address_from": None if by_key else str(client.ip_source),
            "user_agent": None if by_key else user_agent and user_agent[:500],
            "accepted_at": at.isoformat(),
        }


def of_plain_form(given: Mapping[str, str], language: str, day: str) -> Submission:
    """Read what a browser posts.

    The id depends on the content as well: two presses of the button are one lead, and a person who
    goes back to correct a number is not told that they have already sent it.

    :param language: if the form does not name one
    :param day: the UTC date, for a form without a key
    """
    own = dict(given)
    form, key, chosen = (own.pop(name, "") for name in ("form", "key", "language"))
    more: dict[str, Any] = {
        name: own.pop(name, None) or None
        for name in ("form_version", "issued", "proof", "notice_version", "sure")
    }
    more["language"] = chosen if chosen in LANGUAGES else language
    consents = {
        name[len(CONSENT) :]: own.pop(name) for name in list(own) if name.startswith(CONSENT)
    }
    content = json.dumps([sorted(own.items()), sorted(consents.items())])
    return Submission.model_construct(
        form=form,
        key=_with_content(key or day, content.encode()),
        fields=own,
        consents=consents,
        **more,
    )


def picked(thing: object, *names: str) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names}


def _with_content(key: str, content: bytes) -> str:
    return f"{key}\n{hashlib.sha256(content).hexdigest()}"


def posted(body: bytes, content_type: str) -> dict[str, str]:
    """Parse the body of a plain form.

    :param content_type: the whole header, with its boundary
    :raises Problem: as `fields`, and 422 for a name that occurs twice
    """
    given: dict[str, str] = {}
    for name, value in plain_form.fields(body, content_type, MOST_PARTS):
        if name in given:
            raise Problem(422, errors=[(name[:60], "stands twice")])
        if "\0" in name + value:
            raise Problem(422, errors=[(name[:60], "must not contain a NUL character")])
        given[name] = value
    return given


def without_query(page: str | None) -> str | None:
    """Return scheme, host and path of a page: the rest may be about the person."""
    try:
        parts = urlsplit(page or "")
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"[:500]
