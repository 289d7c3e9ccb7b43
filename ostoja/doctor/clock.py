"""Do all clocks agree? A permit holds 20 s, and a lease of another machine's clock is compared."""

from email.utils import parsedate_to_datetime

from ostoja.doctor.finding import Finding, ok, wrong

MOST_SECONDS = 2.0


def judged(
    name: str, there: float, before: float, after: float, *, exact_to: float = 0.0
) -> Finding:
    """Compare a clock that was read between two looks at ours; all are Unix times.

    :param exact_to: how much later it may truly have been
    """
    early, late = before - (there + exact_to), there - after
    apart = max(early, late, 0.0)
    if apart > MOST_SECONDS:
        return wrong(
            "clock",
            f"that of {name} is {apart:.0f} s {'behind' if early > late else 'ahead of'} ours",
            "let NTP set the clock of every machine (timedatectl shows whether it does)",
        )
    return ok("clock", f"that of {name} agrees with ours")


def of_header(date: str) -> float:
    """Read HTTP's Date, in whole seconds."""
    return parsedate_to_datetime(date).timestamp()
