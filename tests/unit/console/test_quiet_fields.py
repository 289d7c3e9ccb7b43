"""The form of quiet hours shows what is stored."""

import re
from collections import defaultdict
from typing import Any

from services.console.pages import page


def ticked(stored: dict[str, object] | None) -> tuple[list[str], list[str], bool]:
    """The days, the two hours, and whether critical alerts wait too."""
    macros: Any = page._HTML.get_template("parts.html").module
    html = str(macros.quiet_fields(defaultdict(str), stored))
    return (
        re.findall(r'name="day" value="(\w+)" checked', html),
        re.findall(r'type="time" value="([\d:]+)"', html),
        'name="critical" checked' in html,
    )


def test_stored_hours_are_what_the_form_shows() -> None:
    stored = {"days": ["sat", "sun"], "begins": "21:30", "ends": "08:00", "critical": True}
    assert ticked(stored) == (["sat", "sun"], ["21:30", "08:00"], True)


def test_without_stored_hours_the_form_offers_every_night() -> None:
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    assert ticked(None) == (days, ["22:00", "07:00"], False)
