"""A stream of pairs: both sides in one batch and in one pack, each pair once, and the place among them."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet import UsageError
from martlet_data.api import prepare as read
from martlet_train.batch import Collator
from martlet_train.streaming import Layout, StreamLoader


def sequences(batch):
    """Return the rows of a batch as tuples of tokens."""
    ids, mask = batch.model_inputs["input_ids"], batch.model_inputs.get("attention_mask")
    if mask is None:
        starts = [*(batch.model_inputs["position_ids"][0] == 0).nonzero().flatten().tolist(), ids.shape[1]]
        return [tuple(ids[0, a:b].tolist()) for a, b in pairwise(starts)]
    return [tuple(row[keep.bool()].tolist()) for row, keep in zip(ids, mask, strict=True)]


def pairs(batch):
    found = sequences(batch)
    assert len(found) % 2 == 0
    return [] if batch.filler else list(zip(found[::2], found[1::2], strict=True))


@pytest.fixture
def stream(prepare, tmp_path):
    """Return a function that opens 17 pairs as a stream, and as they are without one."""
    file = tmp_path / "pairs.jsonl"
    lines = [
        {"query": f"what is {k}", "response": "word " * (1 + k % 4), "rejected_response": f"number {k} " * (1 + k % 3)}
        for k in range(17)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    known = {}

    def make(**flags):
        key = json.dumps(flags)
        if key not in known:
            both = []
            for streaming in (True, False):
                run = prepare(dataset=[str(file)], max_steps=9, streaming=streaming, **flags)
                template = run.one("templates").bind(run.one("models").load_processor(run), run)
                both.append(read(run, template, mode="rlhf").train)
            rows = [tuple(row.input_ids.tolist()) for row in both[1]]
            known[key] = both[0], list(zip(rows[::2], rows[1::2], strict=True))
        return known[key]

    return make


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    buffer=st.sampled_from([1, 4, 100]),
    world=st.integers(1, 4),
    size=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    capacity=st.sampled_from([None, 90, 150]),
)
def test_processes_share_every_pair_once_and_whole(stream, buffer, world, size, accumulation, capacity):
    source, expected = stream(shuffle_buffer_size=buffer)
    assert len(expected) == 17
    found, counts, collator = Counter(), set(), Collator(0, packed=capacity is not None)
    for rank in range(world):
        layout = Layout(size, accumulation, rank=rank, world_size=world, capacity=capacity, group=2)
        batches = list(StreamLoader(source, layout, collator))
        counts.add(len(batches))
        for batch in batches:
            found.update(pairs(batch))
            if capacity is None:
                assert len(sequences(batch)) <= 2 * size
            else:
                assert batch.tokens <= size * capacity
            assert batch.filler is (len(batch.targets) == 0)
    assert found == Counter(expected)
    assert len(counts) == 1
    assert counts.pop() % accumulation == 0


@pytest.mark.parametrize("capacity", [None, 120])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_stream_of_pairs_goes_on_where_it_was_stopped(stream, tmp_path, capacity, after):
    flags = {"shuffle_buffer_size": 5}
    layout, collator = Layout(2, capacity=capacity, group=2), Collator(0, packed=capacity is not None)
    whole = [pairs(batch) for batch in StreamLoader(stream(**flags)[0], layout, collator)]
    source, _ = stream(**flags)
    loader = StreamLoader(source, layout, collator)
    batches = iter(loader)
    begun = [pairs(next(batches)) for _ in range(min(after, len(whole) - 1))]
    loader.save(tmp_path)
    resumed = StreamLoader(source, layout, collator)
    resumed.restore(tmp_path)
    assert begun + [pairs(batch) for batch in resumed] == whole


def test_a_pack_that_a_pair_may_not_fit_into_is_refused(stream):
    source, _ = stream(max_length=60)
    StreamLoader(source, Layout(1, capacity=120, group=2), Collator(0, packed=True))
    said = r"stay in one pack, so --max_length \(60\) may be 59 at most, or --packing_length \(119\) 120 at least"
    with pytest.raises(UsageError, match=said):
        StreamLoader(source, Layout(1, capacity=119, group=2), Collator(0, packed=True))
