"""Which rows are drawn: counts, repeats, the evaluation split, seeds."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet import UsageError
from martlet_data.api import count_rows, load_rows


def questions(run, part="train"):
    return [int(row["messages"][0]["content"][:-1].split()[-1]) for row in load_rows(run, part=part)]


def test_fewer_rows_are_drawn_without_repetition(chats, data_run):
    found = questions(data_run(dataset=[chats() + "#8"]))
    assert len(set(found)) == 8
    assert found != sorted(found)


def test_more_rows_repeat_all_and_draw_the_rest_once(chats, data_run):
    times = Counter(questions(data_run(dataset=[chats() + "#47"])))
    assert sorted(times.values()) == [2] * 13 + [3] * 7


def test_without_shuffling_rows_are_taken_in_order(chats, data_run):
    found = questions(data_run(dataset=[chats() + "#25"], dataset_shuffle=False))
    assert found == [*range(20), *range(5)]


def test_validation_rows_are_taken_in_order_unless_their_own_flag_says_otherwise(chats, data_run):
    references = {"dataset": [chats()], "val_dataset": [chats() + "#9"]}
    assert questions(data_run(**references), "eval") == list(range(9))
    drawn = questions(data_run(**references, val_dataset_shuffle=True), "eval")
    assert drawn != list(range(9))
    assert len(set(drawn)) == 9


def test_several_datasets_are_joined_in_order(chats, data_run):
    found = questions(data_run(dataset=[chats(3, "a.jsonl"), chats(2, "b.jsonl")], dataset_shuffle=False))
    assert found == [0, 1, 2, 0, 1]


def test_the_data_seed_decides_and_the_seed_does_not(chats, data_run):
    settings = {"dataset": [chats() + "#30"], "split_dataset_ratio": 0.2}
    first = [questions(data_run(**settings), part) for part in ("train", "eval")]
    assert first == [questions(data_run(**settings, seed=7), part) for part in ("train", "eval")]
    assert first != [questions(data_run(**settings, data_seed=7), part) for part in ("train", "eval")]


def test_a_dataset_is_drawn_alike_whatever_stands_behind_it(chats, data_run):
    alone = questions(data_run(dataset=[chats() + "#5"]))
    joined = questions(data_run(dataset=[chats() + "#5", chats(30, "more.jsonl") + "#1"]))
    assert len(set(alone) - set(joined)) == 0


@settings(max_examples=40)
@given(
    count=st.none() | st.integers(1, 70),
    ratio=st.sampled_from([0.0, 0.01, 0.2, 0.5, 1.0]),
    shuffle=st.booleans(),
    total=st.integers(1, 25),
)
def test_no_row_is_both_trained_and_evaluated_on(count, ratio, shuffle, total, tmp_path_factory):
    import json

    import martlet

    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps({"query": f"q {k}?", "response": "a"}) + "\n" for k in range(total)))
    text = str(path) if count is None else f"{path}#{count}"
    run = martlet.prepare(
        roles=("template", "data"), dataset=[text], split_dataset_ratio=ratio, dataset_shuffle=shuffle
    )
    counts = count_rows(run)
    assert counts.train + counts.eval == (count or total if counts.train else min(count or total, total))
    trained = questions(run, "train") if counts.train else []
    evaluated = questions(run, "eval") if counts.eval else []
    assert (len(trained), len(evaluated)) == (counts.train, counts.eval)
    assert not set(trained) & set(evaluated)
    assert len(set(evaluated)) == len(evaluated)
    assert bool(evaluated) == (ratio > 0)


def test_the_last_rows_are_set_aside_without_shuffling(chats, data_run):
    run = data_run(dataset=[chats()], split_dataset_ratio=0.1, dataset_shuffle=False)
    assert (questions(run, "eval"), questions(run)) == ([18, 19], list(range(18)))


def test_a_ratio_beside_a_validation_set_is_said_to_have_no_effect(chats, data_run):
    run = data_run(dataset=[chats()], val_dataset=[chats(3, "held.jsonl")], split_dataset_ratio=0.5)
    assert (count_rows(run).train, count_rows(run).eval) == (20, 3)
    assert run.record.warnings == ["--split_dataset_ratio has no effect beside --val_dataset, which is evaluated on."]


def test_no_dataset_at_all_is_a_usage_error(data_run):
    with pytest.raises(UsageError, match="give --dataset"):
        load_rows(data_run())
