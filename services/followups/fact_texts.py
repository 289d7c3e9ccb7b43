"""Facts in words, for visitors, mails and staff."""

from services.followups.facts import Facts


def describe_area(area: float, language: str) -> str:
    text = f"{area:g}"
    return f"{text.replace('.', ',') if language == 'pl' else text} m²"


def describe_budget(budget: int, currency: str | None, language: str) -> str:
    space = "\N{NO-BREAK SPACE}"
    grouped = f"{budget:,}".replace(",", space if language == "pl" else ",")
    unit = "zł" if language == "pl" and currency in {None, "PLN"} else currency or "PLN"
    return f"{grouped}{space}{unit}"


def describe_start(start: str, language: str) -> str:
    if start == "asap":
        return "jak najszybciej" if language == "pl" else "as soon as possible"
    return ".".join(reversed(start.split("-"))) if language == "pl" else start


def describe(facts: Facts, language: str) -> str:
    """List what was understood, so that the person can correct it."""
    parts = [
        facts.name,
        facts.city,
        facts.area and describe_area(facts.area, language),
        facts.budget and describe_budget(facts.budget, facts.currency, language),
        facts.start and describe_start(facts.start, language),
        facts.email,
        facts.phone,
    ]
    return ", ".join(part for part in parts if part)


def summary(facts: Facts, language: str) -> str:
    """Return one line for sales."""
    parts = [
        facts.wish,
        facts.city,
        facts.area and describe_area(facts.area, language),
        facts.budget and describe_budget(facts.budget, facts.currency, language),
        facts.start and f"start: {describe_start(facts.start, language)}",
    ]
    return " · ".join(part for part in parts if part)
