"""A submission of a form, as a program sends it (JSON) and as a page's plain form does."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AwareDatetime, Field

from libs.common.http import plain_form
from libs.common.http.application import Model, Problem
from libs.domain.company import Wording
from libs.domain.forms import LANGUAGES, MOST_FIELDS
from services.gateway.door.clients import Client
from services.gateway.intake.messages import NAMESPACE
from services.gateway.intake.sessions import is_strong

LEAD_SUBMIT = "lead.submit"
MOST_BYTES = 64 * 1024
MOST_PARTS = MOST_FIELDS + 20
"""Of a plain form: its fields, its consents, and what Ostoja's own names hold."""
CONSENT = "consent."

Text = Annotated[str, Field(max_length=MOST_BYTES)]


class LeadRequest(Model):
    form: Annotated[str, Field(max_length=60)]
    form_version: Annotated[str, Field(max_length=60)] | None = None
    language: Literal["pl", "en"]
    session_id: Annotated[str, Field(max_length=200)] | None = None
    fields: dict[str, str | int | float]
    consents: dict[str, Annotated[str, Field(max_length=64)]] = Field(default_factory=dict)
    notice_version: Annotated[str, Field(max_length=60)] | None = None
    issued: Annotated[str, Field(max_length=500)] | None = None
    trap: Text | None = None
    page: Annotated[str, Field(max_length=2000)] | None = None
    agreed_at: AwareDatetime | None = None
    source: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Where the person agreed; for programs with the service key."""

    def submission(self, key: str, body: bytes) -> "Submission":
        return Submission(
            form=self.form,
            key=_with_content(key, body),
            version=self.form_version,
            language=self.language,
            fields={name: str(value) for name, value in self.fields.items()},
            consents=self.consents,
            notice_version=self.notice_version,
            issued=self.issued,
            trap=self.trap,
            page=without_query(self.page),
            session_id=self.session_id if self.session_id and is_strong(self.session_id) else None,
            agreed_at=self.agreed_at,
            source=self.source,
        )


@dataclass(slots=True)
class Submission:
    form: str
    key: str
    """The sender's own, or the UTC day, and the content: other content is another lead."""
    version: str | None
    language: str
    fields: dict[str, str]
    consents: dict[str, str] = field(default_factory=dict)
    notice_version: str | None = None
    issued: str | None = None
    proof: str | None = None
    """That a challenge was solved; of a plain form, that its sender pressed the button again."""
    trap: str | None = None
    page: str | None = None
    session_id: str | None = None
    agreed_at: datetime | None = None
    source: str | None = None

    @property
    def lead_id(self) -> uuid.UUID:
        """Fixed before the first try, so that a repeated request is the same lead."""
        return uuid.uuid5(NAMESPACE, f"lead\n{self.form}\n{self.key}")


def of_plain_form(given: Mapping[str, str], language: str, day: str) -> Submission:
    """Read what a browser posts.

    The id comes from the content, too. So a press of the button twice is one lead, and a person who
    goes back and corrects a number is not told that they have sent that already.

    :param language: if the form does not name one
    :param day: the UTC date, for a form without a key
    """
    own = dict(given)
    named = {
        name: own.pop(name, None)
        for name in ("form", "form_version", "language", "key", "issued", "proof", "notice_version")
    }
    consents = {
        name[len(CONSENT) :]: own.pop(name) for name in list(own) if name.startswith(CONSENT)
    }
    content = json.dumps([sorted(own.items()), sorted(consents.items())])
    return Submission(
        form=named["form"] or "",
        key=_with_content(named["key"] or day, content.encode()),
        version=named["form_version"] or None,
        language=named["language"] if named["language"] in LANGUAGES else language,
        fields=own,
        consents=consents,
        notice_version=named["notice_version"] or None,
        issued=named["issued"] or None,
        proof=named["proof"] or None,
    )


def _with_content(key: str, content: bytes) -> str:
    return f"{key}\n{hashlib.sha256(content).hexdigest()}"


def posted(body: bytes, content_type: str) -> dict[str, str]:
    """Parse the body of a plain form.

    :param content_type: the whole header, with its boundary
    :raises Problem: as `fields`, and 422 for a name that stands twice
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


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the gateway decided about a submission."""

    submission: Submission
    values: Mapping[str, str]
    facts: Mapping[str, str]
    wordings: list[Wording]
    not_recorded: list[str]
    suspicion: str | None

    def message(self, client: Client, user_agent: str | None, at: datetime) -> dict[str, Any]:
        """Make `lead.submit`; its golden form is tests/contracts/lead.submit.json.

        It holds the wordings themselves: whatever forms.toml says when it is read, what was shown
        is recorded.
        """
        given, by_key = self.submission, self.submission.source is not None
        return {
            "id": str(given.lead_id),
            "form": given.form,
            "form_version": given.version,
            "language": given.language,
            "session_id": given.session_id,
            "fields": dict(self.values),
            "facts": dict(self.facts),
            "consents": [
                {
                    "purpose": wording.purpose,
                    "version": wording.version,
                    "language": wording.language,
                    "text": wording.text,
                }
                for wording in self.wordings
            ],
            "consents_not_recorded": self.not_recorded,
            "notice_version": given.notice_version,
            "page": given.page,
            "agreed_at": given.agreed_at and given.agreed_at.isoformat(),
            "source": given.source,
            "suspicion": self.suspicion,
            # A program's address says nothing about the person.
            "client_address": None if by_key else client.ip,
            "client_address_from": None if by_key else str(client.ip_source),
            "user_agent": None if by_key else user_agent and user_agent[:500],
            "accepted_at": at.isoformat(),
        }
