"""Which node of RabbitMQ is restarted because it stays apart from the others."""

import pytest

from deploy.cluster.rejoin import apart


def restarted(**seen: str) -> list[str]:
    views = {host: frozenset(nodes) for host, nodes in seen.items()}
    return [host for host in views if apart(views, host)]


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        ({"a": "abc", "b": "abc", "c": "abc"}, []),
        # It paused, and did not boot again.
        ({"a": "ab", "b": "ab", "c": ""}, ["c"]),
        # Each side sees something else; whoever sees the fewest, and of two the first.
        ({"a": "ab", "b": "ab", "c": "c"}, ["c"]),
        ({"a": "ab", "b": "abc", "c": "bc"}, ["a"]),
        ({"a": "abc", "b": "abc", "c": "bc"}, ["c"]),
        # No majority to join: all wait for each other, or are cut off.
        ({"a": "", "b": "", "c": ""}, []),
        ({"a": "a", "b": "", "c": ""}, []),
        ({"a": "a", "b": "b", "c": "c"}, []),
    ],
)
def test_only_the_node_that_sees_the_fewest_joins_a_majority(
    seen: dict[str, str], chosen: list[str]
) -> None:
    assert restarted(**seen) == chosen
