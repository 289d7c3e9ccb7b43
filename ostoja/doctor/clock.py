"""Compares clocks: a permit is valid for 20 s, and leases use another machine's clock."""

from email.utils import parsedate_to_datetime

from ostoja.doctor.finding import Finding, ok, wrong

MOST_SECONDS = 2.0


def judged(
    name: str, there: float, before: float, after: float, *, exact_to: float = 0.0
) -> Finding:
    """Compare another clock, read between two readings of ours; all are Unix times.

    :param exact_to: the other clock's resolution: the true time may be this much later
    """
    early, late = before - (there + exact_to), there - after
    apart = max(early, late, 0.0)
    if apart > MOST_SECONDS:
        return wrong(
            "clock",
            f"{name}'s is {apart:.0f} s {'behind' if early > late else 'ahead of'} this machine's",
            "let NTP set the clock of every machine (timedatectl shows whether it does)",
        )
    return ok("clock", f"{name}'s clock agrees with this machine's")


def of_header(date: str) -> float:
    """Read HTTP's Date, in whole seconds."""
    return parsedate_to_datetime(date).timestamp()
