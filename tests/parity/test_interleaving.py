"""--interleave_prob against ``datasets.interleave_datasets``: the same rows, given the same turns."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet_data.mixing import mixed, turns
from martlet_data.raw_rows import Mixture, RawRows
from martlet_data.rows import Chained

datasets = pytest.importorskip("datasets")
STRATEGIES = ("first_exhausted", "all_exhausted")


class Turns:
    """Random numbers that give our turns to ``datasets``, which draws them in blocks."""

    def __init__(self, known):
        self.known = iter(known)

    def choice(self, count, size, p):
        return np.array(list(islice(self.known, size)))


class Numbered:
    """The rows of one file as a stream."""

    def __init__(self, number, size):
        self.number, self.size = number, size

    def stream(self, start=()):
        for k in range(*(start or (0,)), self.size):
            yield (k + 1,), {"row": [self.number, k]}


class Dataset:
    """One file, all of whose rows are taken."""

    count = None

    def __init__(self, number, size):
        self.stream = Chained([Numbered(number, size)])


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 10_000),
)
def test_the_rows_are_those_of_datasets(sizes, weights, strategy, seed):
    chances = [weight / sum(weights[: len(sizes)]) for weight in weights[: len(sizes)]]
    parts = [datasets.Dataset.from_dict({"row": [[n, k] for k in range(size)]}) for n, size in enumerate(sizes)]
    known = list(islice(turns(chances, seed), 10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "default_rng", lambda seed: Turns(known))
        theirs = datasets.interleave_datasets(parts, chances, seed=seed, stopping_strategy=strategy)["row"]
    streamed = RawRows([Dataset(n, size) for n, size in enumerate(sizes)], Mixture(chances, strategy, seed), 0, None)
    assert [one.row["row"] for one in streamed] == list(theirs)
    assert mixed(sizes, chances, strategy, seed).tolist() == [number for number, _ in theirs]
