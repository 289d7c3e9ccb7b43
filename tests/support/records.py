"""The sandbox's own record, held against the ids that the client was given."""

from collections.abc import Mapping, Sequence
from typing import Any


def per_alert(
    received: Sequence[Mapping[str, Any]], given: Mapping[str, str]
) -> dict[str, list[int | None]]:
    """Return what was answered each time that an accepted alert was taken (None: nothing came).

    :param given: each accepted id, with a text that only this alert has
    :raises AssertionError: one was never taken, or something arrived that nobody sent
    """
    bodies = [(str(one["body"]), one["answered"]) for one in received]
    got = {
        alert_id: [answered for body, answered in bodies if text in body]
        for alert_id, text in given.items()
    }
    lost = [alert_id for alert_id, answers in got.items() if not answers]
    assert not lost, f"{len(lost)} of {len(given)} accepted were never received: {lost[:3]}"
    assert sum(map(len, got.values())) == len(bodies)
    return got
