"""The texts that the dialogue says: texts.*.toml."""

from collections.abc import Mapping

from services.followups.rules.facts import Question

Script = Mapping[str, str]
"""The texts of one language."""

ABOUT_WORKS: tuple[Question, ...] = ("wish", "area", "budget", "start")
"""The facts that the form asks for, in their order, before the contact."""
