"""Until when people answer what is said now: by the office hours, not by a text."""

from datetime import datetime, timedelta

from libs.domain.hours import Hours
from services.followups.dialogue.texts import Script
from services.followups.rules.fact_texts import describe_start

_WEEK = 7


def by(now: datetime, within: timedelta, office: Hours, script: Script, language: str) -> str:
    """Say when `within` of open time has passed, up to a full hour: `jutro do 12:00`."""
    end = office.add(now, within).astimezone(office.zone)
    hour = end.replace(minute=0, second=0, microsecond=0)
    if hour < end:
        hour += timedelta(hours=1)
    time = min(hour.time(), office.closes or hour.time())
    days = (end.date() - now.astimezone(office.zone).date()).days
    day = script["by_days"].split("|")[end.weekday()]
    if days >= _WEEK:
        day = describe_start(end.date().isoformat(), language)
    name = {0: "by_today", 1: "by_tomorrow"}.get(days, "by_day")
    return script[name].format(day=day, time=f"{time.hour}:{time:%M}")
