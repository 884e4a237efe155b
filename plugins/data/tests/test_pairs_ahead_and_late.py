"""Pairs and labels encoded in advance, kept, late, or as a stream: the same samples, and the same ledger."""

from __future__ import annotations

import json

import pytest

from martlet import UsageError
from martlet_data.api import Place, write_cached_dataset


def pair(question="What?", chosen="good.", rejected="quite bad.", **more):
    return {"query": question, "response": chosen, "rejected_response": rejected, **more}


MANY = [pair(f"What follows {k}?", f"It is {k + 1}.", "No idea. " * (1 + k % 3), margin=k / 2) for k in range(23)]


def contents(samples):
    weights = [None if one.token_weights is None else one.token_weights.tolist() for one in samples]
    plain = [(one.input_ids.tolist(), one.labels.tolist(), one.extra) for one in samples]
    return [(*one, weight, samples.origin(k)) for k, (one, weight) in enumerate(zip(plain, weights, strict=True))]


def streamed(prepared):
    stream = prepared.train
    windows = stream.windows(lambda tasks: map(stream.encoder, tasks), Place())
    return [one for window in windows for one in contents(window.rows)]


WAYS = [
    ("rlhf", {}),
    ("rlhf", {"max_length": 34, "truncation_strategy": "left"}),
    ("rlhf", {"max_length": 34, "truncation_strategy": "right"}),
    ("rlhf", {"max_length": 34}),
    ("rlhf", {"remove_unused_columns": False, "loss_scale": "last_round"}),
    ("kto", {"max_length": 34, "truncation_strategy": "left"}),
    ("kto", {"max_length": 34}),
]


@pytest.fixture
def file(rows):
    bad = [{"query": "q", "response": "a"}, "{", pair(rejected="good."), pair(chosen="word " * 90, label=False)]
    longer = pair("Tell it at length, please, and do not stop. " * 2, "No.", "Well, " * 9 + "no.", label=True)
    lines = [{**row, "label": k % 3 > 0} for k, row in enumerate(MANY)]
    return rows([*lines[:5], *bad, longer, *lines[5:]])


@pytest.mark.parametrize(("mode", "flags"), WAYS)
def test_training_on_a_cached_dataset_is_training_on_its_rows(mode, flags, prepared, data_run, bound, file, tmp_path):
    made = {name: value for name, value in flags.items() if name not in ("max_length", "truncation_strategy")}
    run = data_run(dataset=[file], max_dropped=1.0, **made)
    (tmp_path / "cached").mkdir()
    ledger = write_cached_dataset(run, bound(run), tmp_path / "cached", mode)
    lines = (tmp_path / "cached" / "train" / "rows.jsonl").read_text().splitlines()
    direct, _ = prepared(mode, dataset=[file], dataset_shuffle=False, **flags)
    flags = {"cached_dataset": [f"{tmp_path}/cached/train"], "dataset_shuffle": False, **flags}
    cached, run = prepared(mode, **flags)
    assert contents(cached.train) == contents(direct.train)
    assert ledger.totals()["train"] == len(lines)
    (one,) = run.record.notes["data"]["datasets"]
    assert (one["made"], one["selected"]) == (0, len(lines))
    assert one["train"] * cached.group == len(cached.train)
    again, other = prepared(mode, **{**flags, "cached_dataset": [f"{tmp_path}/cached/train#9"]})
    assert contents(again.train) == contents(cached.train)[: len(again.train)]
    assert other.record.notes["data"]["datasets"][0]["selected"] == 9


@pytest.mark.parametrize(
    ("written", "wanted"), [("rlhf", "train"), ("train", "rlhf"), ("kto", "rlhf"), ("rlhf", "kto")]
)
def test_a_cached_dataset_for_something_else_is_refused_with_the_way_out(
    written, wanted, prepared, data_run, bound, rows, tmp_path
):
    run = data_run(dataset=[rows([pair(label=True)])])
    (tmp_path / "cached").mkdir()
    write_cached_dataset(run, bound(run), tmp_path / "cached", written)
    said = (
        f"written with --template_mode {written}; .* takes {wanted}.*--to_cached_dataset true --template_mode {wanted}"
    )
    with pytest.raises(UsageError, match=said):
        prepared(wanted, cached_dataset=[f"{tmp_path}/cached/train"])


def test_the_cache_keeps_each_mode_apart(prepared, file, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    flags = {"dataset": [file], "load_from_cache_file": True, "max_length": 60}
    first = {mode: prepared(mode, **flags) for mode in ("rlhf", "kto", "train")}
    assert len(list((tmp_path / "cache" / "martlet" / "encoded").iterdir())) == 3
    monkeypatch.setattr("martlet_data.modes.encoded_by", None)  # nothing is encoded again
    for mode, (before, run) in first.items():
        again, other = prepared(mode, **flags)
        assert contents(again.train) == contents(before.train)
        assert again.fingerprint == before.fingerprint
        assert other.record.notes["data"] == run.record.notes["data"]


@pytest.mark.parametrize(("mode", "flags"), WAYS)
def test_rows_encoded_when_they_are_fetched_are_the_same(mode, flags, prepared, file):
    flags = {"dataset": [file], "split_dataset_ratio": 0.2, "dataset_shuffle": False, **flags}
    eager, run = prepared(mode, **flags)
    lazy, other = prepared(mode, lazy=True, **flags)
    assert lazy.group == eager.group
    for late, early in ((lazy.train, eager.train), (lazy.eval, eager.eval)):
        known = {one[-1]: [] for one in contents(early)}
        for one in contents(early):
            known[one[-1]].append(one)
        for place in reversed(range(0, len(late), lazy.group)):  # a side alone, and before its pair
            origin = late.origin(place)
            for side in reversed(range(lazy.group)):
                if origin in known:
                    found = late[place + side]
                    assert found.input_ids.tolist() == known[origin][side][0]
                    assert found.extra == known[origin][side][2]
        list(late)
    lazy.finish()
    assert other.record.notes["data"]["totals"] == run.record.notes["data"]["totals"]
    ledgers = [json.loads((one.folder / "ledger.json").read_text()) for one in (run, other)]
    assert ledgers[0] == ledgers[1]


def test_a_pair_that_is_refused_late_is_replaced_by_the_next_pair(prepared, rows):
    lines = [pair("a?"), pair("b?", "word " * 90), pair("c?", "word " * 90), pair("d?", "yes.", "no.")]
    lazy, run = prepared(lazy=True, dataset=[rows(lines)], max_length=60, dataset_shuffle=False)
    assert len(lazy.train) == 8
    found = [one.input_ids.tolist() for one in lazy.train]
    assert found[2:4] == found[4:6] == found[6:8] != found[:2]
    restored, other = prepared(lazy=True, dataset=[rows(lines)], max_length=60, dataset_shuffle=False)
    lazy.save(run.folder)
    restored.restore(run.folder)
    for one in (lazy, restored):
        one.finish()
    (counted,) = other.record.notes["data"]["datasets"]
    assert counted["dropped"] == {"too long": 2}
    assert counted["train"] == 2
    assert counted["tokens"] == sum(map(len, found[:2] + found[6:8]))
    assert restored.train.fetched == (4, 4)


def test_what_is_said_of_a_late_row_is_about_that_row(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("MARTLET_EXTERNAL_PLUGINS", "")
    (tmp_path / "rows.json").write_text(json.dumps([{"n": 1}, {"n": 90}]))
    plugin = tmp_path / "acme_halves.py"
    plugin.write_text(
        "from martlet import Dataset, hookimpl\n"
        "def halves(row):\n"
        "    text = 'word ' * row['n']\n"
        "    return [{'query': 'a?', 'response': text}, {'query': 'a?', 'response': text, 'rejected_response': 'b'}]\n"
        "@hookimpl\n"
        "def provide_datasets():\n"
        f"    yield Dataset('halves', halves, source={{'file': {str(tmp_path / 'rows.json')!r}}})\n"
    )
    flags = {"dataset": ["halves"], "external_plugins": [str(plugin)], "max_length": 60}
    lazy, run = prepared(lazy=True, **flags)
    eager, other = prepared(**flags)
    list(lazy.train)
    lazy.finish()
    for one in (run, other):
        assert one.record.notes["data"]["totals"]["dropped"] == {"nothing rejected": 2, "too long": 1}
        assert one.record.notes["data"]["totals"]["made"] == 2
    assert len(eager.train) == 2


@pytest.mark.parametrize(("mode", "flags"), WAYS)
@pytest.mark.parametrize("buffer", [3, 50])
def test_a_stream_has_the_samples_of_a_map(mode, flags, buffer, prepared, file):
    flags = {"dataset": [file], "val_dataset": [file], "dataset_shuffle": False, **flags}
    whole, _ = prepared(mode, **flags)
    stream, _ = prepared(mode, streaming=True, shuffle_buffer_size=buffer, **flags)
    assert (stream.group, stream.train.group) == (whole.group, whole.group)
    assert streamed(stream) == contents(whole.train)
    assert contents(stream.eval) == contents(whole.eval)
    stream.finish()
    names = ("selected", "train", "eval", "dropped", "made", "tokens", "supervised_tokens")
    mine, other = (ledger.totals() for ledger in (stream.ledger, whole.ledger))
    assert [mine[name] for name in names] == [other[name] for name in names]


def test_another_mode_is_another_stream_and_another_run(prepared, file):
    for way in ({"streaming": True}, {"lazy": True}, {}):
        prints = [prepared(mode, dataset=[file], **way)[0].fingerprint for mode in ("train", "rlhf", "kto")]
        assert len(set(prints)) == 3


@pytest.mark.parametrize("way", [{}, {"lazy": True}, {"streaming": True}])
def test_both_sides_know_their_file(way, prepared, tmp_path, write_jsonl):
    (tmp_path / "folder").mkdir()
    for number, lines in enumerate((MANY[:9], MANY[9:])):
        write_jsonl(tmp_path / "folder" / f"train-{number}.jsonl", lines)
    found, _ = prepared(dataset=[str(tmp_path / "folder")], dataset_shuffle=False, **way)
    samples = streamed(found) if "streaming" in way else contents(found.train)
    expected = [(f"train-{k >= 9:d}.jsonl", k + 1 - 9 * (k >= 9)) for k in range(len(MANY)) for _ in range(2)]
    assert [(one[-1].file.rpartition("/")[2], one[-1].line) for one in samples] == expected
