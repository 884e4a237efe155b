"""Training on a stream: the rows, the steps, and going on where it was stopped."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet import CheckpointError, ConfigError, UsageError
from martlet_data.api import Place
from martlet_data.api import prepare as read
from martlet_train.batch import Collator
from martlet_train.interruption import Interrupted
from martlet_train.streaming import Layout, StreamLoader

STREAM = {"streaming": True, "max_steps": 6, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


def contents(batch):
    """Return the rows of a batch that count, as tuples of tokens."""
    ids, mask = batch.model_inputs["input_ids"], batch.model_inputs.get("attention_mask")
    if mask is None:
        starts = [*(batch.model_inputs["position_ids"][0] == 0).nonzero().flatten().tolist(), ids.shape[1]]
        rows = [tuple(ids[0, a:b].tolist()) for a, b in pairwise(starts)]
    else:
        rows = [tuple(row[keep.bool()].tolist()) for row, keep in zip(ids, mask, strict=True)]
    counted = set(batch.sequence.tolist())
    return [row for number, row in enumerate(rows) if number in counted]


@pytest.fixture
def stream(prepare, tiny_model):
    """Return a function that opens the rows as a stream, and their tokens as a run without streaming has them."""

    known = {}

    def make(**flags):
        key = json.dumps(flags)
        if key not in known:
            known[key] = opened(flags)
        return known[key]

    def opened(flags):
        both = []
        for streaming in (True, False):
            run = prepare(max_steps=9, streaming=streaming, **flags)
            template = run.one("templates").bind(run.one("models").load_processor(run), run)
            both.append(read(run, template).train)
        return both[0], [tuple(row.input_ids.tolist()) for row in both[1]]

    return make


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    buffer=st.sampled_from([1, 4, 7, 100]),
    world=st.integers(1, 5),
    size=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    capacity=st.sampled_from([None, 40, 64]),
)
def test_processes_share_every_row_once_in_equally_many_batches(stream, buffer, world, size, accumulation, capacity):
    source, expected = stream(shuffle_buffer_size=buffer)
    found, counts, collator = Counter(), set(), Collator(0, packed=capacity is not None)
    for rank in range(world):
        layout = Layout(size, accumulation, rank=rank, world_size=world, capacity=capacity)
        batches = list(StreamLoader(source, layout, collator))
        counts.add(len(batches))
        assert all(batch.tokens <= size * (capacity or 10**6) for batch in batches)
        found.update(row for batch in batches for row in contents(batch))
    assert found == Counter(expected)
    assert len(counts) == 1
    assert counts.pop() % accumulation == 0


def batches(loader, passes=1):
    """Return the tokens of each batch, row by row."""
    return [contents(batch) for _ in range(passes) for batch in loader]


@pytest.mark.parametrize("capacity", [None, 48])
def test_the_number_of_workers_changes_nothing(stream, capacity):
    source, _ = stream(shuffle_buffer_size=5)
    layout, collator = Layout(2, 2, capacity=capacity), Collator(0, packed=capacity is not None)
    alone = batches(StreamLoader(source, layout, collator), passes=2)
    for workers, persistent in ((1, True), (2, False)):
        loader = StreamLoader(source, layout, collator, workers=workers, persistent=persistent)
        assert batches(loader, passes=2) == alone


def test_batches_go_on_over_the_end_of_a_window_and_not_of_a_pass(stream):
    source, expected = stream(shuffle_buffer_size=4)
    sizes = [len(rows) for rows in batches(StreamLoader(source, Layout(8), Collator(0)))]
    assert sizes == [8, 8, len(expected) - 16]
    dropping = StreamLoader(source, Layout(8, drop_last=True), Collator(0))
    assert [len(rows) for rows in batches(dropping)] == [8, 8]


def test_the_order_changes_with_every_pass_unless_a_flag_says_otherwise(stream):
    source, expected = stream(shuffle_buffer_size=50)
    loader = StreamLoader(source, Layout(1), Collator(0))
    first, second = batches(loader), batches(loader)
    assert sorted(first) == sorted(second) == sorted([row] for row in expected)
    assert first != second
    steady = StreamLoader(source, Layout(1, reshuffle=False), Collator(0))
    assert batches(steady) == batches(steady)
    in_order, expected = stream(dataset_shuffle=False)
    assert batches(StreamLoader(in_order, Layout(1), Collator(0))) == [[row] for row in expected]


def test_rows_are_shuffled_within_the_buffer(stream):
    source, _ = stream(shuffle_buffer_size=7)
    found = [rows[0] for rows in batches(StreamLoader(source, Layout(1), Collator(0)))]
    in_order = [tuple(row.tolist()) for row in _in_order(source)]
    for start in range(0, len(found), 7):
        assert sorted(found[start : start + 7]) == sorted(in_order[start : start + 7])
    assert found != in_order


def _in_order(source):
    windows = source.windows(lambda tasks: map(source.encoder, tasks), Place())
    return [sample.input_ids for window in windows for sample in window.rows]


# Training

SAME = ("model.safetensors", "optimizer.safetensors", "scheduler.safetensors", "random_state.safetensors")
WAYS = {
    "buffer": {"shuffle_buffer_size": 5, "save_steps": 2},
    "in order": {"dataset_shuffle": False, "save_steps": 4},
    "workers": {"dataloader_num_workers": 2, "shuffle_buffer_size": 4, "save_steps": 3},
    "packing": {"packing": True, "max_length": 48, "shuffle_buffer_size": 6, "save_steps": 1, "max_steps": 3},
    "padding_free": {"padding_free": True, "shuffle_buffer_size": 4, "save_steps": 5, "max_steps": 9},
    "end of a pass": {"gradient_accumulation_steps": 1, "save_steps": 11, "max_steps": 14},
    "passes": {"save_strategy": "epoch", "max_epochs": 2, "max_steps": 50, "lr_scheduler_type": "constant"},
    "weights alone": {"save_steps": 2, "resume_only_model": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_resumed_is_uninterrupted_to_the_bit(train, way):
    settings = {**STREAM, "logging_steps": 2, **WAYS[way]}
    only_model = settings.pop("resume_only_model", False)
    whole = train(**settings)
    middle = sorted(whole.folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))[0]
    torch.manual_seed(1234)
    resumed = train(**settings, resume_from_checkpoint=str(middle), resume_only_model=only_model)
    assert resumed.checkpoint.name == whole.checkpoint.name != middle.name
    assert stopped(resumed.checkpoint) == stopped(whole.checkpoint)
    assert resumed.ledger == whole.ledger
    if not only_model:
        for name in SAME:
            assert (resumed.checkpoint / name).read_bytes() == (whole.checkpoint / name).read_bytes()
        assert history(resumed.checkpoint) == history(whole.checkpoint)


def stopped(folder):
    return json.loads((folder / "stream.json").read_text())


def history(folder):
    """Return what was logged, times and speeds aside."""
    lines = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    clocks = ("runtime", "per_second")
    return [{key: value for key, value in line.items() if not key.endswith(clocks)} for line in lines]


@pytest.fixture
def two_files(rows, tmp_path):
    """Return the rows, and a file of bad and good ones."""
    lines = rows.read_text().splitlines()[:9]
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join([*lines[:4], '{"query": 1, "response": 2}', "{", *lines[4:]]) + "\n")
    return [str(rows), str(other)]


MIXED = {"interleave_prob": [0.5, 0.5], "stopping_strategy": "all_exhausted", "max_dropped": 0.5}


def test_a_mixture_with_bad_rows_resumes_with_its_ledger(train, two_files):
    settings = {**STREAM, **MIXED, "dataset": two_files, "shuffle_buffer_size": 6, "save_steps": 3, "max_steps": 12}
    settings |= {"dataloader_num_workers": 1, "save_total_limit": 9}
    whole = train(**settings)
    assert whole.ledger["totals"]["dropped"]
    for step in (3, 6, 9):
        resumed = train(**settings, resume_from_checkpoint=str(whole.folder / f"checkpoint-{step}"))
        for name in (*SAME, "stream.json"):
            assert (resumed.checkpoint / name).read_bytes() == (whole.checkpoint / name).read_bytes()
        for name in ("ledger.json", "dropped.jsonl"):
            assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_the_ledger_adds_up_and_names_every_bad_row(train, two_files):
    result = train(**STREAM, dataset=two_files, max_dropped=0.5)
    totals = json.loads((result.folder / "ledger.json").read_text())["totals"]
    dropped = [json.loads(line) for line in (result.folder / "dropped.jsonl").read_text().splitlines()]
    assert totals["selected"] + totals["made"] == totals["train"] + sum(totals["dropped"].values()) == 32
    assert [(one["file"], one["line"]) for one in dropped] == [(two_files[1], 5), (two_files[1], 6)]
    assert result.ledger["totals"] == totals


def test_throughput_is_told_with_every_checkpoint_and_at_the_end(train, caplog):
    caplog.set_level("INFO", "martlet")
    train(**STREAM, save_steps=2)
    told = [line for line in caplog.messages if line.startswith("Streamed ")]
    assert len(told) == 4  # after steps 2, 4 and 6, and at the end
    assert all(re.search(r"rows/s, [\d,]+ tokens/s, [\d.]+ % of the tokens supervised", line) for line in told)


def test_passes_that_follow_count_no_row_again(train, two_files):
    once = train(**{**STREAM, "max_steps": 8}, dataset=two_files, max_dropped=0.5)
    thrice = train(**{**STREAM, "max_steps": 24}, dataset=two_files, max_dropped=0.5)
    assert once.ledger == thrice.ledger


def test_too_many_bad_rows_end_the_run(train, two_files):
    with pytest.raises(Exception, match=r"other\.jsonl: 2 of the first 11 rows .* --max_dropped 0\.1 allows"):
        train(**STREAM, dataset=two_files)


def test_a_run_ends_after_max_epochs_with_every_row_used(train):
    result = train(**{**STREAM, "max_steps": 500}, max_epochs=2, save_strategy="epoch")
    steps = sorted(int(path.name.partition("-")[2]) for path in result.folder.glob("checkpoint-*"))
    assert steps == [6, 12]  # 21 rows, 4 in a step
    assert json.loads((result.checkpoint / "trainer_state.json").read_text())["epoch"] == 2
    again = train(**{**STREAM, "max_steps": 500}, max_epochs=2, resume_from_checkpoint=str(result.checkpoint))
    assert not list(again.folder.glob("checkpoint-1[3-9]"))


def test_a_signal_leaves_a_checkpoint_that_continues_and_a_ledger(train, tmp_path, two_files):
    settings = {**STREAM, "dataset": two_files, "max_dropped": 0.5, "dataloader_num_workers": 2}
    settings |= {"shuffle_buffer_size": 9, "save_steps": 6}
    with pytest.raises(Interrupted, match="--resume_from_checkpoint"):
        train(**settings, callbacks=["send_signal"], set=["callback.send_signal.step=4"])
    folder = next((tmp_path / "out").iterdir())
    totals = json.loads((folder / "ledger.json").read_text())["totals"]
    assert totals["selected"] == totals["train"] + sum(totals["dropped"].values())
    resumed, whole = train(**settings, resume_from_checkpoint=str(folder / "checkpoint-4")), train(**settings)
    for name in (*SAME, "stream.json"):
        assert (resumed.checkpoint / name).read_bytes() == (whole.checkpoint / name).read_bytes()


def test_every_row_of_a_pass_weighs_the_same_as_without_streaming(train):
    settings = {"max_steps": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    settings |= {"dataset_shuffle": False, "train_dataloader_shuffle": False, "logging_steps": 1}
    whole, streamed = train(**settings), train(**settings, streaming=True)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (streamed.checkpoint / name).read_bytes() == (whole.checkpoint / name).read_bytes()


def test_rows_are_evaluated_as_without_streaming(train, rows):
    settings = {"max_steps": 2, "val_dataset": [str(rows)], "eval_strategy": "steps", "eval_steps": 2}
    settings |= {"dataset_shuffle": False, "train_dataloader_shuffle": False}
    whole, streamed = train(**settings), train(**settings, streaming=True)
    assert streamed.metrics["eval_loss"] == whole.metrics["eval_loss"]
    assert streamed.ledger["totals"]["eval"] == 21


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shuffle_buffer_size": 6}, "the training rows"),
        ({"data_seed": 7}, "the order of the rows"),
        ({"gradient_accumulation_steps": 3}, "the rows in a step"),
        ({"loss_scale": "all"}, "are encoded otherwise"),
        ({"streaming": False}, "the training rows"),
    ],
)
def test_flags_that_lose_the_place_are_refused(train, changed, words):
    settings = {**STREAM, "shuffle_buffer_size": 5, "save_steps": 2, "max_steps": 4}
    first = train(**settings)
    with pytest.raises(CheckpointError, match=words):
        train(**{**settings, **changed}, resume_from_checkpoint=str(first.folder / "checkpoint-2"))


def test_ignore_data_skip_begins_the_stream_anew(train):
    settings = {**STREAM, "save_steps": 2, "max_steps": 4}
    first = train(**settings)
    anew = train(
        **settings, shuffle_buffer_size=3, ignore_data_skip=True,
        resume_from_checkpoint=str(first.folder / "checkpoint-2"),
    )  # fmt: skip
    assert stopped(anew.checkpoint)["place"]["epoch"] == 0
    assert anew.checkpoint.name == "checkpoint-4"


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"max_steps": -1}, ConfigError, "--max_steps has to say where training"),
        ({"group_by_length": True}, ConfigError, "--group_by_length true needs the lengths"),
        ({"packing": True}, ConfigError, "needs --max_length"),
        ({"packing": True, "max_length": 64, "packing_length": 32}, ConfigError, r"at most --packing_length \(32\)"),
        ({"split_dataset_ratio": 0.1}, UsageError, "--split_dataset_ratio needs all rows at hand.*--val_dataset"),
    ],
)
def test_what_a_stream_cannot_do_is_refused_at_once(train, flags, error, words):
    with pytest.raises(error, match=words):
        train(**{**STREAM, **flags})
