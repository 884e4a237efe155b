"""Rows that are encoded when they are fetched: the same samples, and every row accounted for in the end."""

from __future__ import annotations

import json
import multiprocessing
from itertools import cycle, islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet import DataError, UsageError
from martlet_data.api import prepare


def long(word: str) -> dict[str, str]:
    return {"query": word, "response": "word " * 60}


@pytest.fixture
def rows(tmp_path, write_jsonl):
    good = [{"query": f"What follows {k}?", "response": f"It is {k + 1}.", "note": k} for k in range(20)]
    return str(write_jsonl(tmp_path / "rows.jsonl", [*good[:5], "{", long("a"), long("b"), *good[5:]]))


@pytest.fixture
def prepared(data_run, bound):
    def make(lazy: bool = True, **flags):
        run = data_run(folder=True, **{"max_dropped": 0.9, **flags})
        return prepare(run, bound(run), lazy=lazy), run

    return make


def contents(samples):
    return [(one.input_ids.tolist(), one.labels.tolist(), one.extra) for one in samples]


@pytest.mark.parametrize(
    "more", [{}, {"remove_unused_columns": False}, {"dataset_num_proc": 2}, {"split_dataset_ratio": 0.3}]
)
def test_samples_are_those_of_a_run_that_encodes_first(more, prepared, rows):
    lazy, _ = prepared(dataset=[f"{rows}#50"], **more)
    eager, _ = prepared(lazy=False, dataset=[f"{rows}#50"], **more)
    for late, early in ((lazy.train, eager.train), (lazy.eval, eager.eval)):
        if early is not None:
            assert contents(late) == contents(early)
            assert [late.origin(k) for k in range(len(late))] == [early.origin(k) for k in range(len(early))]


def test_a_row_that_is_refused_is_replaced_by_the_next_and_counted(prepared, rows):
    flags = {"dataset": [rows, f"{rows}#44"], "max_length": 60, "dataset_shuffle": False}
    lazy, run = prepared(**flags)
    eager, other = prepared(lazy=False, **flags)
    assert json.loads((run.folder / "ledger.json").read_text())["totals"]["dropped"] == {"malformed JSON": 3}
    lines = [lazy.train.origin(k).line for k in range(len(lazy.train))]
    assert [lines.count(line) for line in (6, 7, 8)] == [0, 3, 3]
    found = contents(lazy.train)
    at = lines.index(7)
    assert found[at] == found[at + 1] == found[at + 2]
    assert [one for one, line in zip(found, lines, strict=True) if line not in (7, 8)] == contents(eager.train)
    lazy.finish()
    ledgers = [json.loads((one.folder / "ledger.json").read_text()) for one in (run, other)]
    assert ledgers[0] == ledgers[1]
    assert run.record.notes["data"]["totals"]["dropped"] == {"malformed JSON": 3, "too long": 6}
    dropped = [sorted((one.folder / "dropped.jsonl").read_text().splitlines()) for one in (run, other)]
    assert dropped[0] == dropped[1]


def test_rows_that_were_never_fetched_are_not_judged(prepared, rows):
    lazy, run = prepared(dataset=[rows], max_length=60, dataset_shuffle=False)
    lazy.train[0]
    lazy.finish()
    (one,) = run.record.notes["data"]["datasets"]
    assert (one["train"], one["dropped"], one["tokens"]) == (22, {"malformed JSON": 1}, len(lazy.train[0].input_ids))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=st.lists(st.booleans(), min_size=1, max_size=12).filter(lambda bad: not all(bad)), order=st.randoms())
def test_the_sample_at_a_place_depends_on_the_rows_alone(bad, order, prepared, tmp_path, write_jsonl):
    lines = [long(str(k)) if one else {"query": str(k), "response": "b"} for k, one in enumerate(bad)]
    file = str(write_jsonl(tmp_path / "some.jsonl", lines))
    flags = {"dataset": [file], "max_length": 60, "max_dropped": 1.0, "dataset_shuffle": False}
    one, _ = prepared(**flags)
    expected = contents(one.train)
    for place, found in enumerate(expected):
        nearest = next(k for k in islice(cycle(range(len(bad))), place, None) if not bad[k])
        assert found == expected[nearest]
    again, run = prepared(**flags)
    places = list(range(len(bad))) * 2
    order.shuffle(places)
    assert [contents([again.train[place]])[0] for place in places] == [expected[place] for place in places]
    again.finish()
    (ledger,) = run.record.notes["data"]["datasets"]
    assert ledger["dropped"] == ({"too long": sum(bad)} if any(bad) else {})
    assert ledger["selected"] == ledger["train"] + sum(bad) == len(bad)


def test_what_other_processes_find_is_counted(prepared, rows):
    lazy, run = prepared(dataset=[rows], max_length=60)
    process = multiprocessing.get_context("fork").Process(target=lambda: list(lazy.train))
    process.start()
    process.join()
    assert process.exitcode == 0
    lazy.finish()
    assert run.record.notes["data"]["totals"]["dropped"] == {"malformed JSON": 1, "too long": 2}


def test_a_row_that_becomes_several_gives_each_of_them(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("MARTLET_EXTERNAL_PLUGINS", "")
    (tmp_path / "rows.json").write_text(json.dumps([{"n": k} for k in range(1, 4)]))
    plugin = tmp_path / "acme_several.py"
    plugin.write_text(
        "from martlet import Dataset, hookimpl\n"
        "def several(row):\n"
        "    return [{'query': str(row['n']), 'response': str(k)} for k in range(row['n'])]\n"
        "@hookimpl\n"
        "def provide_datasets():\n"
        f"    yield Dataset('several', several, source={{'file': {str(tmp_path / 'rows.json')!r}}})\n"
    )
    flags = {"dataset": ["several#5"], "external_plugins": [str(plugin)]}
    lazy, _ = prepared(**flags)
    eager, _ = prepared(lazy=False, **flags)
    assert contents(lazy.train) == contents(eager.train)


def test_too_many_refused_rows_end_the_run(prepared, rows):
    lazy, _ = prepared(dataset=[rows], max_length=60, max_dropped=0.05)
    with pytest.raises(DataError, match=r"2 of 22 rows cannot be used so far, more than --max_dropped 0\.05 allows"):
        list(lazy.train)


def test_a_strict_run_ends_with_the_first(prepared, tmp_path, write_jsonl):
    file = write_jsonl(tmp_path / "rows.jsonl", [{"query": "a", "response": "b"}, long("c")])
    lazy, _ = prepared(dataset=[str(file)], max_length=60, strict=True)
    with pytest.raises(DataError, match=r"rows\.jsonl:2: too long"):
        list(lazy.train)


def test_nothing_that_can_be_used_ends_the_run(prepared, tmp_path, write_jsonl):
    file = write_jsonl(tmp_path / "rows.jsonl", [long("c")] * 3)
    lazy, _ = prepared(dataset=[str(file)], max_length=60, max_dropped=1.0)
    with pytest.raises(DataError, match="None of the rows can be used"):
        lazy.train[1]


def test_fingerprints_follow_rows_order_and_template(prepared, rows):
    def fingerprint(**flags):
        return prepared(dataset=[rows], **flags)[0].train.fingerprint

    assert fingerprint() == fingerprint(seed=7)
    others = [
        {"data_seed": 7},
        {"system": "Be brief."},
        {"loss_scale": "all"},
        {"max_length": 60},
        {"columns": {"note": "n"}},
    ]
    assert len({fingerprint(), *(fingerprint(**other) for other in others)}) == 6


def test_what_makes_several_samples_of_a_row_is_refused(prepared, rows):
    with pytest.raises(UsageError, match="split makes several of one"):
        prepared(dataset=[rows], truncation_strategy="split", use_chat_template=False, loss_scale="all")
