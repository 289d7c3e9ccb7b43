import asyncio
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libs.common.messaging.acks import Acks

COUNT = 30


class Channel:
    """What RabbitMQ keeps of a channel: the tags that wait."""

    def __init__(self, turns: Iterator[int]) -> None:
        self.waiting = set(range(1, COUNT + 1))
        self.frames = 0
        self._turns = turns

    async def basic_ack(self, tag: int, *, multiple: bool = False, wait: bool) -> None:
        assert not wait
        for _ in range(next(self._turns)):  # until there is a place among the frames
            await asyncio.sleep(0)
        assert tag in self.waiting  # else it closes the channel
        self.frames += 1
        self.waiting -= {one for one in self.waiting if one < tag} if multiple else set()
        self.waiting.remove(tag)


def acks(channel: Any) -> Acks:
    return Acks(channel)


@given(
    order=st.permutations(range(1, COUNT + 1)),
    rejected=st.sets(st.integers(1, COUNT)),
    held=st.sets(st.integers(1, COUNT), max_size=3),
    size=st.integers(1, COUNT),
    turns=st.lists(st.integers(0, 3), min_size=1, max_size=5),
)
async def test_each_tag_is_acknowledged_or_rejected_once_and_pending_ones_are_not(
    order: list[int], rejected: set[int], held: set[int], size: int, turns: list[int]
) -> None:
    channel = Channel(cycle(turns))
    subject = acks(channel)
    async with asyncio.TaskGroup() as writing:
        for at in range(0, COUNT, size):
            for tag in order[at : at + size]:
                if tag in held:
                    continue
                if tag in rejected:
                    channel.waiting.remove(tag)
                    subject.rejected(tag)
                elif subject.add(tag):
                    writing.create_task(subject.write())
            await asyncio.sleep(0)
    assert channel.waiting == held
