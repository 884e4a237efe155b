"""The order of rows: a function of seed and epoch, the same rows in a step however it is split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from martlet_train.sampling import BatchSampler, EpochOrder

units = st.integers(1, 60)


def steps(order, batch_size, accumulation, world_size=1, epoch=0):
    """Return the set of units of every optimizer step, over all processes."""
    samplers = [BatchSampler(order, batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    batches = [list(sampler) for sampler in samplers]
    assert len({len(mine) for mine in batches}) == 1, "every process must have the same number of batches"
    return [
        sorted(unit for mine in batches for batch in mine[at : at + accumulation] for unit in batch if unit >= 0)
        for at in range(0, len(batches[0]), accumulation)
    ]


@given(units, st.integers(0, 9), st.integers(0, 3))
def test_every_split_of_eight_rows_a_step_has_the_same_steps(count, seed, epoch):
    order = EpochOrder(units=count, seed=seed)
    whole = steps(order, 8, 1, epoch=epoch)
    assert sorted(unit for step in whole for unit in step) == list(range(count))
    for batch_size, accumulation, world_size in [(4, 2, 1), (2, 4, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]:
        assert steps(order, batch_size, accumulation, world_size, epoch) == whole


def test_epochs_differ_and_repeat_exactly():
    order = EpochOrder(units=50, seed=1)
    assert order(0) != order(1)
    assert order(1) == EpochOrder(units=50, seed=1)(1)
    assert order(0) != EpochOrder(units=50, seed=2)(0)


def test_without_shuffling_the_file_order_is_kept():
    assert list(BatchSampler(EpochOrder(units=5, seed=0, shuffle=False), 2)) == [[0, 1], [2, 3], [4]]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 6))
def test_grouping_by_length_keeps_every_row_and_puts_the_longest_first(lengths, per_step):
    order = EpochOrder(units=len(lengths), seed=5, lengths=lengths, per_step=per_step)(0)
    assert sorted(order) == list(range(len(lengths)))
    if len(lengths) >= per_step * 2:
        assert max(lengths[unit] for unit in order[:per_step]) == max(lengths)


def test_grouping_by_length_pads_less():
    lengths = [1 + number * 37 % 101 for number in range(400)]

    def padded(order):
        return sum(8 * max(lengths[u] for u in order[at : at + 8]) for at in range(0, 400, 8))

    plain = EpochOrder(units=400, seed=0)(0)
    grouped = EpochOrder(units=400, seed=0, lengths=lengths, per_step=8)(0)
    assert padded(grouped) < 0.7 * padded(plain)


def test_packs_are_kept_together():
    packs = [[3, 1], [0], [2, 4]]
    sampler = BatchSampler(EpochOrder(units=3, seed=0, shuffle=False), 2, packs=packs)
    assert list(sampler) == [[3, 1, 0], [2, 4]]


def test_drop_last_leaves_only_full_batches():
    sampler = BatchSampler(EpochOrder(units=7, seed=0), 3, drop_last=True)
    assert [len(batch) for batch in sampler] == [3, 3]


def test_a_process_without_rows_gets_one_that_counts_for_nothing():
    order = EpochOrder(units=3, seed=0, shuffle=False)
    assert list(BatchSampler(order, 1, rank=1, world_size=2)) == [[1], [-1]]
