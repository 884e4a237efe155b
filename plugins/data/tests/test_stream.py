"""Rows as a stream: the same rows as without, places to go on from, counts, and what ends a run."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet import DataError, UsageError
from martlet_data.api import Place, SampleStream, load_rows, pack, prepare
from martlet_data.resolve import check


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def here(stream):
    """Return how a stream's rows are encoded without workers."""
    return lambda tasks: map(stream.encoder, tasks)


def windows(stream, place=None, **settings):
    return list(stream.windows(here(stream), place or Place(), **settings))


def origins(found):
    return [str(window.rows.origin(k)) for window in found for k in range(len(window.rows))]


@pytest.fixture
def opened(data_run, bound):
    """Return a function that opens datasets, as a stream and without."""

    def make(streaming=True, **flags):
        run = data_run(streaming=streaming, **flags)
        return prepare(run, bound(run))

    return make


@pytest.fixture
def mixed_files(tmp_path, write_jsonl):
    """Three files, of which some rows cannot be used."""
    paths = []
    for name, count in (("a", 23), ("b", 57), ("c", 110)):
        rows = [chat(f"What {name} {k}?", "It is. " * (1 + k % 9)) for k in range(count)]
        rows[5] = "not JSON"
        rows[11] = {"unknown": 1}
        paths.append(str(write_jsonl(tmp_path / f"{name}.jsonl", rows)))
    return paths


MIXTURES = (None, "first_exhausted", "all_exhausted")


@pytest.mark.parametrize("strategy", MIXTURES)
def test_a_stream_has_the_rows_and_the_order_of_a_map(opened, mixed_files, strategy):
    flags = {"dataset": mixed_files, "dataset_shuffle": False, "max_dropped": 0.5}
    if strategy:
        flags |= {"interleave_prob": [0.2, 0.3, 0.5], "stopping_strategy": strategy}
    streamed, whole = opened(**flags), opened(False, **flags)
    found = windows(streamed.train)
    assert origins(found) == [str(whole.train.origin(k)) for k in range(len(whole.train))]
    samples = [sample for window in found for sample in window.rows]
    for mine, other in zip(samples, whole.train, strict=True):
        assert np.array_equal(mine.input_ids, other.input_ids)
        assert np.array_equal(mine.labels, other.labels)
    counted = ("made", "dropped", "train", "tokens", "supervised_tokens", "selected", "repeated")
    for mine, other in zip(streamed.ledger.datasets, whole.ledger.datasets, strict=True):
        assert mine.balanced()
        assert [getattr(mine, name) for name in counted] == [getattr(other, name) for name in counted]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    buffer=st.integers(1, 200),
    strategy=st.sampled_from(MIXTURES),
    tokens=st.sampled_from([0, 700]),
    epoch=st.integers(0, 2),
)
def test_every_window_can_be_taken_up(opened, mixed_files, tmp_path, buffer, strategy, tokens, epoch):
    flags = {"dataset": mixed_files, "shuffle_buffer_size": buffer, "max_dropped": 0.5}
    if strategy:
        flags |= {"interleave_prob": [0.2, 0.3, 0.5], "stopping_strategy": strategy}
    stream = opened(**flags).train
    begin = Place() if epoch == 0 else stream.next_pass(epoch)
    whole = windows(stream, begin, tokens=tokens)
    end = asdict(stream.next_pass(3))
    for number in {0, len(whole) // 2, len(whole) - 1}:
        place = Place(**json.loads(json.dumps(asdict(whole[number].place))))
        resumed = opened(**flags).train
        resumed.restore(tmp_path, place)
        rest = windows(resumed, place, tokens=tokens)
        assert [one.rows.fingerprint for one in rest] == [one.rows.fingerprint for one in whole[number:]]
        assert [one.place for one in rest] == [one.place for one in whole[number:]]
        if epoch == 0:
            assert asdict(resumed.next_pass(3)) == end


def test_rows_that_are_cut_into_several_are_counted_as_without_streaming(opened, tmp_path, write_jsonl):
    file = str(write_jsonl(tmp_path / "text.jsonl", [{"text": "Some words. " * (k % 7)} for k in range(40)]))
    flags = {"dataset": [file], "dataset_shuffle": False, "max_dropped": 0.5, "max_length": 12}
    flags |= {"truncation_strategy": "split", "use_chat_template": False}
    streamed, whole = opened(**flags), opened(False, **flags)
    assert origins(windows(streamed.train)) == [str(whole.train.origin(k)) for k in range(len(whole.train))]
    assert streamed.ledger.as_dict() == whole.ledger.as_dict()
    assert streamed.ledger.totals()["made"]


def test_what_encodes_rows_can_be_sent_to_a_process(opened, chats):
    stream = opened(dataset=[chats(9)]).train
    copy = pickle.loads(pickle.dumps(stream.encoder))
    found = list(stream.windows(lambda tasks: map(copy, tasks), Place()))
    assert [len(window.rows) for window in found] == [9]


def test_windows_hold_the_buffer_and_no_more(opened, chats):
    for buffer, sizes in ((1, [1] * 30), (7, [7, 7, 7, 7, 2]), (30, [30]), (1000, [30])):
        found = windows(opened(dataset=[chats(30)], shuffle_buffer_size=buffer).train)
        assert [len(window.rows) for window in found] == sizes


def test_a_window_to_be_packed_has_tokens_enough(opened, chats):
    stream = opened(dataset=[chats(200)], shuffle_buffer_size=10).train
    found = windows(stream, tokens=1000)
    assert all(window.rows.tokens >= 1000 for window in found[:-1])
    assert max(len(window.rows) for window in found) < 60


def test_windows_pack_as_full_as_a_map(opened, tmp_path, write_jsonl):
    rows = [chat("Say it.", "word " * (3 + (k * 7919) % 90)) for k in range(3000)]
    file = str(write_jsonl(tmp_path / "long.jsonl", rows))
    packs = [pack(window.rows.lengths, 512) for window in windows(opened(dataset=[file]).train, tokens=50 * 512)]
    fill = sum(int(one.tokens.sum()) for one in packs) / (512 * sum(map(len, packs)))
    assert fill > 0.98


def test_a_count_takes_the_first_rows(opened, chats):
    found = windows(opened(dataset=[chats(30) + "#12"], shuffle_buffer_size=5).train)
    assert [place.rpartition(":")[2] for place in origins(found)] == [str(line) for line in range(1, 13)]


def test_a_count_above_the_rows_is_told_and_not_made_up(opened, chats, logged):
    prepared = opened(dataset=[chats(10) + "#50"])
    assert len(origins(windows(prepared.train))) == 10
    assert any("it has only 10 rows; a stream does not repeat them" in line for line in logged)


def test_rows_are_read_when_they_are_needed(opened, chats):
    prepared = opened(dataset=[chats(400)], shuffle_buffer_size=10)
    iterator = prepared.train.windows(here(prepared.train), Place())
    next(iterator)
    assert prepared.ledger.datasets[0].read == 10


def test_a_strict_run_stops_at_the_bad_row(opened, mixed_files):
    flags = {"dataset": mixed_files[:1], "strict": True, "shuffle_buffer_size": 4}
    with pytest.raises(DataError, match=r"a\.jsonl:6: malformed JSON"):
        windows(opened(**flags).train)


def test_a_dataset_of_which_nothing_can_be_used_ends_the_run_before_a_model_is_loaded(opened, tmp_path, write_jsonl):
    file = str(write_jsonl(tmp_path / "bad.jsonl", [{"unknown": k} for k in range(90)]))
    with pytest.raises(DataError, match=r"64 of the first 64 rows \(100.0%\) cannot be used.*unknown layout"):
        opened(dataset=[file])
    stream = opened(dataset=[file], max_dropped=1.0).train
    assert stream.sample is None
    with pytest.raises(DataError, match="90 of the first 90 rows"):
        windows(stream)


def test_too_many_bad_rows_end_the_run_as_soon_as_there_are_rows_enough(opened, tmp_path, write_jsonl):
    rows = [chat("Yes?", "No.") if k % 4 else {"unknown": 1} for k in range(5000)]
    stream = opened(dataset=[str(write_jsonl(tmp_path / "some.jsonl", rows))], shuffle_buffer_size=64).train
    with pytest.raises(
        DataError, match=r"32 of the first 128 rows \(25.0%\) cannot be used, more than --max_dropped 0.1"
    ):
        windows(stream)
    assert stream.ledger.datasets[0].read == 128


def test_nothing_supervised_ends_the_run(data_run, tmp_path, write_jsonl, bound):
    rows = [{"messages": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "No.", "loss": False}]}]
    run = data_run(dataset=[str(write_jsonl(tmp_path / "mute.jsonl", rows * 70))], streaming=True)
    with pytest.raises(DataError, match="nothing supervised"):
        prepare(run, bound(run))


def test_dropped_rows_are_written_once_and_counted(data_run, bound, mixed_files, chats):
    flags = {"dataset": mixed_files, "val_dataset": [mixed_files[0]], "max_dropped": 0.5, "shuffle_buffer_size": 20}
    run = data_run(folder=True, streaming=True, **flags)
    prepared = prepare(run, bound(run))
    for epoch in (0, 1):
        list(prepared.train.windows(here(prepared.train), prepared.train.next_pass(epoch)))
    prepared.train.finish()
    dropped = [json.loads(line) for line in (run.folder / "dropped.jsonl").read_text().splitlines()]
    totals = json.loads((run.folder / "ledger.json").read_text())["totals"]
    assert len(dropped) == sum(totals["dropped"].values()) == 8
    assert [(one["file"][-7], one["line"]) for one in dropped[2:]] == [(n, line) for n in "abc" for line in (6, 12)]
    assert totals["eval"] == 21
    assert totals["selected"] == totals["train"] + totals["eval"] + 8


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_checkpoint_keeps_the_dropped_rows_up_to_its_place(data_run, bound, mixed_files, tmp_path, evaluated):
    flags = {"dataset": mixed_files, "max_dropped": 0.5, "shuffle_buffer_size": 20}
    flags |= {"val_dataset": mixed_files[:1]} if evaluated else {}
    run = data_run(folder=True, streaming=True, **flags)
    stream = prepare(run, bound(run)).train
    found = windows(stream)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    stream.save(checkpoint, found[2].place)
    assert len((checkpoint / "dropped.jsonl").read_text().splitlines()) == 4 + 2 * evaluated
    again = data_run(folder=True, streaming=True, **flags)
    resumed = prepare(again, bound(again)).train
    resumed.restore(checkpoint, found[2].place)
    windows(resumed, found[2].place)
    for one in (stream, resumed):
        one.finish()
    for name in ("ledger.json", "dropped.jsonl"):
        assert (again.folder / name).read_bytes() == (run.folder / name).read_bytes()


def test_columns_that_no_row_had_are_told_at_the_end(opened, chats, logged):
    stream = opened(dataset=[chats(3)], columns={"nothing": "query"}).train
    windows(stream)
    assert not any("no row has a column" in line for line in logged)
    stream.finish()
    assert any("--columns: no row has a column 'nothing'" in line for line in logged)
    assert any(line.startswith("Streamed 3 rows in") for line in logged)


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.parquet", "rows.jsonl.gz"])
def test_every_format_streams(opened, tmp_path, name):
    rows = [{"query": f"What {k}?", "response": f"It is {k}."} for k in range(40)]
    file = tmp_path / name
    if name.endswith("gz"):
        import gzip

        file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    elif name.endswith("json"):
        file.write_text(json.dumps(rows))
    elif name.endswith("csv"):
        file.write_text("query,response\n" + "".join(f"{row['query']},{row['response']}\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=7)
    flags = {"dataset": [str(file)], "shuffle_buffer_size": 6}
    stream = opened(**flags).train
    whole = windows(stream)
    assert sum(len(window.rows) for window in whole) == 40
    rest = windows(opened(**flags).train, whole[3].place)
    assert [one.rows.fingerprint for one in rest] == [one.rows.fingerprint for one in whole[3:]]


def test_what_a_stream_cannot_do_is_refused(data_run, chats):
    with pytest.raises(UsageError, match=r"--split_dataset_ratio needs all rows at hand.*--val_dataset"):
        check(data_run(dataset=[chats()], streaming=True, split_dataset_ratio=0.1).config)
    with pytest.raises(UsageError, match="--cached_dataset is encoded already"):
        check(data_run(cached_dataset=[chats()], streaming=True).config)


def test_rows_that_are_held_in_memory_are_no_stream_and_that_is_told(data_run, chats, logged):
    assert len(load_rows(data_run(dataset=[chats(5)], streaming=True))) == 5
    assert any("--streaming has no effect" in line for line in logged)


def test_prepare_returns_a_stream_with_its_first_sample(opened, chats):
    prepared = opened(dataset=[chats(5)])
    assert isinstance(prepared.train, SampleStream)
    assert np.array_equal(prepared.train.sample.input_ids, windows(prepared.train)[0].rows[0].input_ids)
    assert prepared.ledger.datasets[0].read == 5
