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


@settings(max_examples=15)
@given(CASES, st.integers(2, 3))
def test_several_processes_pack_each_sample_once_and_the_same_each_time(case, processes):
    capacity, lengths = case
    first, second = (pack(lengths, capacity, processes) for _ in range(2))
    assert [each.tolist() for each in first] == [each.tolist() for each in second]
    assert sorted(index for each in first for index in each.tolist()) == list(range(len(lengths)))
    fillings = [sum(lengths[index] for index in each) for each in first]
    assert fillings == first.tokens.tolist()
    assert all(filling <= capacity for filling in fillings)
    shares = [share.tolist() for share in np.array_split(np.asarray(lengths, int), min(processes, len(lengths)) or 1)]
    assert sorted(fillings) == sorted(filling for share in shares for filling in one_by_one(share, capacity))


def test_packing_runs_in_other_processes(monkeypatch):
    import os

    from martlet_data import packing

    here = os.getpid()
    pack_share = packing._packed
    monkeypatch.setattr(packing, "_packed", lambda *given: pack_share(*given) if os.getpid() != here else 1 / 0)
    monkeypatch.setattr(packing._packed, "__module__", packing.__name__)
    monkeypatch.setattr(packing._packed, "__qualname__", "_packed")
    assert len(pack([3] * 8, 6, 2)) == 4
    with pytest.raises(ZeroDivisionError):
        pack([3] * 8, 6)


@given(st.integers(1, 20).flatmap(lambda top: st.tuples(st.just(top), st.lists(st.integers(1, top), max_size=7))))
def test_packs_are_within_the_known_bound_of_the_fewest_possible(case):
    """D. S. Johnson proved 11/9 of the optimum and a constant, which G. Dosa made 6/9."""
    capacity, lengths = case
    assert 9 * len(pack(lengths, capacity)) <= 11 * fewest(tuple(sorted(lengths)), capacity) + 6


def fewest(lengths, capacity):
    """Try all ways to fill packs, one sample after another."""
    best = [len(lengths)]

    def place(rest, rooms):
        if len(rooms) >= best[0] and rest:
            return
        if not rest:
            best[0] = min(best[0], len(rooms))
            return
        for number, room in enumerate(rooms):
            if rest[-1] <= room:
                place(rest[:-1], [*rooms[:number], room - rest[-1], *rooms[number + 1 :]])
        place(rest[:-1], [*rooms, capacity - rest[-1]])

    place(list(lengths), [])
    return best[0]
