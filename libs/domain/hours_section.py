"""The table of business hours in a TOML file: zone, opens, closes, weekends, holidays."""

from collections.abc import Container
from datetime import date, time
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from holidays import country_holidays
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from libs.domain.hours import Hours


def _zone(name: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(name))
    except (KeyError, OSError, ValueError):
        raise ValueError("unknown time zone on this machine (is tzdata installed?)") from None


def _holidays(country: object) -> Container[date]:
    """Return the public holidays of a country, for any year."""
    try:
        return country_holidays(str(country))
    except NotImplementedError:
        raise ValueError("must be a supported country code, as in PL") from None


Zone = Annotated[Any, BeforeValidator(_zone)]


class HoursSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: Zone
    opens: time
    closes: time
    weekends: bool = False
    holidays: Annotated[Any, BeforeValidator(_holidays)] = ()

    @model_validator(mode="after")
    def _opens_before_it_closes(self) -> Self:
        if self.opens >= self.closes:
            raise ValueError("opens must be before closes")
        return self

    @property
    def hours(self) -> Hours:
        return Hours(self.zone, self.opens, self.closes, self.weekends, self.holidays)
