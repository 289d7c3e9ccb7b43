"""Every wording of consent that the company has published, in company.toml and forms.toml.

Only these become a record of consent, whoever sends one. Neither file drops an older one, so that
what somebody agreed to years ago is found as well.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from libs.domain.company import CompanyFile, Wording
from libs.domain.forms import Forms

Find = Callable[[str], Wording | None]
SINCE = datetime(2018, 1, 1, tzinfo=UTC)
"""An imported agreement from before counts only once it is confirmed."""


def finder(company: CompanyFile, known: Forms) -> Find:
    """Return what finds a wording by its exact text, or by the SHA-256 of that (in hex)."""
    published = [*company.published]
    for name, form in known.items():
        for consent in form.consents:
            wordings = (wording for _, wording in consent.wordings())
            published += [replace(each, version=f"{name}/{each.version}") for each in wordings]
    found: dict[str, Wording] = {}
    for each in published:
        found.setdefault(each.text, each)
        found.setdefault(each.sha256, each)
    return lambda given: found.get(given.strip())
