"""How each fault run ends: the ledger's equation, and the sandbox's record against the client's."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.stack import Stack


async def assert_everything_arrived(
    stack: Stack,
    accepted: Mapping[str, str],
    *,
    failed: Iterable[str] = (),
    unanswered: Iterable[str] = (),
    duplicates: int | range = 0,
    seconds: float = 90,
) -> dict[str, int]:
    """Wait until nothing is on its way any more, then hold the two records side by side.

    :param accepted: what the client was answered 202 for: id → the text, which is its alone
    :param failed: ids among them whose target refused them for good
    :param unanswered: texts that were sent without a 202: each may have arrived, too
    :param duplicates: how many receptions more than one an alert the policy allows, all together
    :returns: texts received more than once, and how often
    """
    refused = set(failed)
    unfinished: dict[str, str | None] = {}

    async def ended() -> dict[str, Any] | None:
        nonlocal unfinished
        check = await stack.balanced()
        if check is None:
            return None
        states = states_in_the_ledger(stack, accepted)
        wanted = {id_: "failed" if id_ in refused else "delivered" for id_ in accepted}
        unfinished = {id_: states.get(id_) for id_ in accepted if states.get(id_) != wanted[id_]}
        return None if unfinished else check

    try:
        check = await eventually(ended, seconds, every=0.2)
    except TimeoutError:
        pytest.fail(f"{await stack.ledger()}; not ended so in the ledger: {unfinished}")
    assert check["unread"] == 0, check

    got = await stack.sandbox.received("slack")
    received = Counter(str(one["body"]["text"]) for one in got)
    wanted = [text for id_, text in accepted.items() if id_ not in refused]
    lost = [text for text in wanted if not received[text]]
    assert not lost, f"accepted, and never received: {lost}"
    strangers = set(received) - set(wanted) - set(unanswered)
    assert not strangers, f"received, and never sent: {strangers}"
    again = {text: count for text, count in received.items() if count > 1}
    allowed = duplicates if isinstance(duplicates, range) else range(duplicates, duplicates + 1)
    assert sum(again.values()) - len(again) in allowed, f"duplicates: {again}"
    return again


def states_in_the_ledger(stack: Stack, ids: Iterable[str]) -> dict[str, str]:
    found = stack.query(
        "SELECT alert_id::text, state FROM alerts.delivery WHERE alert_id = ANY(%s::uuid[])",
        list(ids),
    )
    return {row.alert_id: row.state for row in found}
