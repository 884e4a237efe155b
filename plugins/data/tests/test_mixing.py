"""--interleave_prob and --stopping_strategy: which rows come, how often, in what order."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet import UsageError
from martlet_data.api import load_rows, prepare
from martlet_data.mixing import mixed, turns
from martlet_data.resolve import check


@st.composite
def mixtures(draw):
    sizes = draw(st.lists(st.integers(1, 60), min_size=2, max_size=4))
    weights = draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    return sizes, [weight / sum(weights) for weight in weights], draw(st.integers(0, 2**31))


@settings(max_examples=150)
@given(mixtures())
def test_the_first_that_ends_ends_the_mixture(mixture):
    sizes, chances, seed = mixture
    found = mixed(sizes, chances, "first_exhausted", seed)
    counts = np.bincount(found, minlength=len(sizes))
    assert (counts <= sizes).all()
    assert counts[found[-1]] == sizes[found[-1]]
    assert sum(counts == sizes) == 1


@settings(max_examples=150)
@given(mixtures())
def test_all_must_end_and_the_last_one_ends_the_mixture(mixture):
    sizes, chances, seed = mixture
    found = mixed(sizes, chances, "all_exhausted", seed)
    counts = np.bincount(found, minlength=len(sizes))
    assert (counts >= sizes).all()
    assert counts[found[-1]] == sizes[found[-1]]


@settings(max_examples=50)
@given(mixtures(), st.integers(0, 2500))
def test_turns_can_be_taken_up_anywhere(mixture, start):
    _, chances, seed = mixture
    whole = list(islice(turns(chances, seed), start + 30))
    assert list(islice(turns(chances, seed, start=start), 30)) == whole[start:]


def test_the_probabilities_are_kept():
    counts = np.bincount(list(islice(turns([0.1, 0.6, 0.3], 5), 20_000)), minlength=3)
    assert np.abs(counts / 20_000 - [0.1, 0.6, 0.3]).max() < 0.01


def names(run, part="train"):
    """Return for each row, in order, which file it is from and its number there."""
    rows = load_rows(run, part=part)
    return [
        (one.dataset[-7], int(row["messages"][0]["content"][:-1].split()[-1]))
        for row, one in zip(rows, rows.ids, strict=True)
    ]


@pytest.fixture
def two(chats):
    return {"dataset": [chats(10, "a.jsonl"), chats(40, "b.jsonl")], "interleave_prob": [0.5, 0.5]}


def test_without_shuffling_each_dataset_gives_its_rows_in_order(two, data_run):
    found = names(data_run(**two, dataset_shuffle=False))
    for name in "ab":
        numbers = [number for one, number in found if one == name]
        assert numbers == list(range(len(numbers)))
    assert [number for one, number in found if one == "a"] == list(range(10))
    assert found != sorted(found)  # not one after another
    assert len(found) < 50


def test_all_exhausted_repeats_the_shorter_dataset(two, data_run):
    times = Counter(names(data_run(**two, stopping_strategy="all_exhausted")))
    assert {times[("b", number)] for number in range(40)} == {1}
    assert min(times[("a", number)] for number in range(10)) >= 2


def test_what_is_left_out_is_left_out_by_chance(two, data_run):
    used = {number for name, number in names(data_run(**two)) if name == "b"}
    assert used != set(range(len(used)))
    assert {number for name, number in names(data_run(**two, data_seed=1)) if name == "b"} != used


def test_validation_rows_are_not_mixed(two, chats, data_run):
    run = data_run(**two, val_dataset=[chats(4, "c.jsonl"), chats(3, "d.jsonl")], dataset_shuffle=False)
    assert names(run, "eval") == [*(("c", k) for k in range(4)), *(("d", k) for k in range(3))]


def test_the_split_is_taken_before_the_mixture(two, data_run):
    run = data_run(**two, split_dataset_ratio=0.2)
    held, used = set(names(run, "eval")), set(names(run))
    assert len(held) == 10
    assert not held & used


def test_the_ledger_counts_rows_that_are_left_out_and_rows_that_repeat(two, data_run, bound):
    for strategy in ("first_exhausted", "all_exhausted"):
        run = data_run(**two, stopping_strategy=strategy)
        prepared = prepare(run, bound(run))
        totals = prepared.ledger.totals()
        assert totals["train"] == len(prepared.train)
        assert totals["read"] + totals["repeated"] == totals["selected"] + totals["not_sampled"]
        assert bool(totals["repeated"]) == (strategy == "all_exhausted")
        assert bool(totals["not_sampled"]) == (strategy == "first_exhausted")


def test_a_dataset_whose_turn_never_comes_is_no_fault(chats, data_run):
    run = data_run(dataset=[chats(1, "a.jsonl"), chats(3, "b.jsonl")], interleave_prob=[0.9999, 0.0001])
    assert names(run) == [("a", 0)]


@pytest.mark.parametrize(
    ("chances", "words"),
    [
        ([0.5], "1 probabilities for 2 datasets"),
        ([0.5, 0.4], "they add up to 0.9, not to 1"),
        ([1.0, 0.0], "each must be above 0"),
        ([1.5, -0.5], "each must be above 0"),
    ],
)
def test_probabilities_that_do_not_fit_are_refused(two, data_run, chances, words):
    with pytest.raises(UsageError, match=words):
        check(data_run(**{**two, "interleave_prob": chances}).config)


def test_one_dataset_is_not_mixed(chats, data_run):
    with pytest.raises(UsageError, match="it mixes several datasets, and 1 is named"):
        check(data_run(dataset=[chats()], interleave_prob=[1.0]).config)
