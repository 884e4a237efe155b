"""Packing: every sample once, nothing too long, as full as best-fit decreasing makes it."""

from __future__ import annotations

import bisect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet import DataError
from martlet_data.api import pack

CASES = st.integers(1, 60).flatmap(
    lambda capacity: st.tuples(st.just(capacity), st.lists(st.integers(1, capacity), max_size=80))
)


def one_by_one(lengths, capacity):
    """Best-fit decreasing, as the textbook has it: return the sorted fillings of the packs."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        place = bisect.bisect_left(rooms, length)
        room = rooms.pop(place) if place < len(rooms) else capacity
        bisect.insort(rooms, room - length)
    return [capacity - room for room in reversed(rooms)]


@settings(deadline=None)
@given(CASES)
def test_packs_are_those_of_the_textbook(case):
    capacity, lengths = case
    packs = pack(lengths, capacity)
    assert sorted(index for each in packs for index in each.tolist()) == list(range(len(lengths)))
    fillings = [sum(lengths[index] for index in each) for each in packs]
    assert fillings == packs.tokens.tolist()
    assert sorted(fillings) == one_by_one(lengths, capacity)


def test_packing_is_deterministic_and_full():
    lengths = np.clip(np.exp(np.random.default_rng(1).normal(5.8, 0.9, 50_000)).astype(int), 8, 4096)
    first, second = pack(lengths, 4096), pack(lengths.tolist(), 4096)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert first.fill > 0.99
    assert first.tokens.max() <= 4096


def test_packs_are_a_sequence():
    packs = pack([3, 3, 2], 5)
    assert len(packs) == 2
    assert packs[-1].tolist() == packs[1].tolist()
    with pytest.raises(IndexError):
        packs[2]
    assert len(pack([], 5)) == 0


@pytest.mark.parametrize(
    ("lengths", "capacity", "said"),
    [([3, 9], 5, "Sample 1 has 9 tokens and fits no pack of 5"), ([3, 0], 5, "no tokens"), ([3], 0, "at least 1")],
)
def test_what_cannot_be_packed_is_refused(lengths, capacity, said):
    with pytest.raises(DataError, match=said):
        pack(lengths, capacity)
