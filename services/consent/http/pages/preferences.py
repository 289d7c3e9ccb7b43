"""A data subject's agreements by purpose, for the preferences page."""

from collections.abc import Mapping

from services.consent.http import pages
from services.consent.http.pages import Choice, Quote
from services.consent.rules import Stands
from services.consent.standing import Standing


def choices(found: Mapping[str, Standing], language: str) -> list[Choice]:
    """Return each purpose with its state."""
    texts = pages.text("preferences", language)
    shown = []
    for purpose, standing in found.items():
        named, about = pages.text(purpose, language), standing.agreement
        since = pages.date(standing.since, language) if standing.since else ""
        shown.append(
            Choice(
                purpose=purpose,
                name=named["name"],
                state=texts[standing.state].format(date=since),
                granted=standing.state is Stands.GRANTED,
                withdraw=named["withdraw"],
                wording=Quote(about["text"], about["language"]) if about else None,
            )
        )
    return shown
