"""Rows as pairs and with labels: two samples side by side, every row accounted for, both sides cut alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet import DataError, UsageError
from martlet.protocols import Encoded, Refused
from martlet_data.api import load_rows
from martlet_data.modes import MODES, cut_alike

FIXTURES = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pair(question="What?", chosen="good.", rejected="quite bad.", **more):
    return {"query": question, "response": chosen, "rejected_response": rejected, **more}


def label(question="What?", answer="good.", **more):
    return {"query": question, "response": answer, "label": True, **more}


MANY = [pair(f"What follows {k}?", f"It is {k + 1}.", "No idea. " * (1 + k % 3), margin=k / 2) for k in range(23)]


def contents(samples):
    weights = [None if one.token_weights is None else one.token_weights.tolist() for one in samples]
    plain = [(one.input_ids.tolist(), one.labels.tolist(), one.extra) for one in samples]
    return [(*one, weight, samples.origin(k)) for k, (one, weight) in enumerate(zip(plain, weights, strict=True))]


# What a row becomes

TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Look up", "parameters": {}}}]
ASKED = [{"role": "user", "content": "Weather in Oslo?"}]
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look_up", "arguments": {}}}]}
RESULT = {"role": "tool", "content": "Rain"}
WET, DRY = ({"role": "assistant", "content": text} for text in ("It rains.", "It is dry."))
TURNS = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}, *ASKED]
LAYOUTS = [
    pair(),
    {"messages": [*TURNS, WET], "rejected_response": "It is dry."},
    {"messages": [*ASKED, CALL, RESULT, WET], "rejected_messages": [*ASKED, DRY], "tools": TOOLS},
    {"messages": [*ASKED, WET], "rejected_messages": [*ASKED, CALL, RESULT, DRY], "tools": TOOLS},
    {"prompt": "What?", "chosen": "good.", "rejected": "bad."},
    {"chosen": [*TURNS, WET], "rejected": [*TURNS, DRY]},
    {"messages": [*ASKED, WET], "rejected_messages": [*TURNS, DRY]},
]


@pytest.mark.parametrize("row", LAYOUTS)
def test_both_sides_are_encoded_as_they_would_be_alone(row, prepared, rows, data_run, bound):
    file = rows([{**row, "margin": 0.5, "channel": "a", "note": 7}])
    found, _ = prepared(dataset=[file])
    run = data_run()
    (standard,) = load_rows(run, [file])
    sides = [{**standard, "messages": standard[name]} for name in ("messages", "rejected_messages")]
    alone = bound(run).encode_batch(sides)
    assert found.group == 2
    assert [one.input_ids.tolist() for one in found.train] == [one.input_ids for one in alone]
    assert [one.labels.tolist() for one in found.train] == [one.labels for one in alone]
    assert [one.extra for one in found.train] == [{"margin": 0.5, "channel": "a"}] * 2


def test_columns_are_kept_on_both_sides_when_they_are_asked_for(prepared, rows):
    found, _ = prepared(dataset=[rows([pair(note=7)])], remove_unused_columns=False)
    assert [one.extra for one in found.train] == [{"note": 7}] * 2


def test_a_label_stays_with_its_sample(prepared, rows):
    lines = [label(channel="a"), label("Why?", label=False), {"query": "no", "response": "label"}]
    found, run = prepared("kto", dataset=[rows(lines)], dataset_shuffle=False)
    assert found.group == 1
    assert [one.extra for one in found.train] == [{"channel": "a", "label": True}, {"label": False}]
    assert run.record.notes["data"]["totals"]["dropped"] == {"bad label": 1}


def test_a_row_with_a_second_answer_is_still_one_sample_to_fine_tune_on(prepared, rows):
    plain = [{name: row[name] for name in ("query", "response")} for row in MANY]
    with_pairs, alone = (prepared("train", dataset=[rows(lines)])[0] for lines in (MANY, plain))
    assert with_pairs.group == 1
    assert with_pairs.train.fingerprint == alone.train.fingerprint


DIFFERENT = {
    "nothing rejected": ({"query": "a?", "response": "b."}, "there is no rejected answer beside the chosen one"),
    "equal answers": (pair(rejected="good."), "is the same as the answer; there is nothing to prefer"),
    "bad pair": (pair(rejected=[{"role": "user", "content": "a?"}]), "ends with user, not an answer"),
    "empty content": (pair(rejected=[{"role": "assistant", "content": ""}]), "empty"),
    "too long": (pair(rejected="word " * 90), r"the rejected conversation: \d+ tokens; --max_length is 60"),
    "nothing supervised": (
        {**pair(), "rejected_response": [{"role": "assistant", "content": "bad.", "loss": False}]},
        "the rejected conversation: no token of it",
    ),
}


@pytest.mark.parametrize("expected", DIFFERENT)
def test_a_pair_that_cannot_be_used_is_told_with_its_row_and_its_side(expected, prepared, rows):
    row, why = DIFFERENT[expected]
    file = rows([pair(), row])
    found, run = prepared(dataset=[file], max_length=60)
    (dropped,) = [json.loads(line) for line in (run.folder / "dropped.jsonl").read_text().splitlines()]
    assert (dropped["line"], dropped["reason"], len(found.train)) == (2, expected, 2)
    with pytest.raises(DataError, match=rf"{file}:2: {expected}: .*{why}"):
        prepared(dataset=[file], max_length=60, strict=True)


def test_answers_that_differ_in_white_space_alone_are_a_pair(prepared, rows):
    found, run = prepared(dataset=[rows([pair(chosen="good.", rejected="good. ")])])
    assert len(found.train) == 2
    assert run.record.notes["data"]["totals"]["dropped"] == {}


@pytest.mark.parametrize(("given", "said"), [(None, "there is no label"), (1, "label is a number"), ("yes", "is text")])
def test_a_label_that_is_neither_true_nor_false_is_told(given, said, prepared, rows):
    with pytest.raises(DataError, match=f"bad label: .*{said}; say with true or false whether the answer is good"):
        prepared("kto", dataset=[rows([label(label=given)])], strict=True)


@pytest.mark.parametrize(("mode", "line"), [("rlhf", pair()), ("kto", label())])
@pytest.mark.parametrize("way", [{}, {"lazy": True}, {"streaming": True}])
def test_what_would_cut_an_answer_into_pieces_is_refused(mode, line, way, prepared, rows):
    flags = {"truncation_strategy": "split", "use_chat_template": False, "loss_scale": "all", **way}
    with pytest.raises(UsageError, match="--truncation_strategy split would cut"):
        prepared(mode, dataset=[rows([line])], **flags)


# Every row accounted for

KINDS = {
    "used": lambda k: pair(f"{k}?"),
    "alone": lambda k: {"query": f"{k}?", "response": "b."},
    "equal": lambda k: pair(f"{k}?", "same", "same"),
    "long": lambda k: pair(f"{k}?", "word " * 90),
    "mute": lambda k: {**pair(f"{k}?"), "rejected_response": [{"role": "assistant", "content": "b", "loss": False}]},
    "broken": lambda k: "{",
}
REASONS = {"alone": "nothing rejected", "equal": "equal answers", "long": "too long", "mute": "nothing supervised"}
REASONS["broken"] = "malformed JSON"


@FIXTURES
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=12),
    count=st.sampled_from(["", "#7", "#40"]),
    ratio=st.sampled_from([0.0, 0.4]),
    shuffle=st.booleans(),
)
def test_rows_are_used_or_dropped_and_pairs_stand_side_by_side(kinds, count, ratio, shuffle, prepared, rows):
    kinds = ["used"] * 4 + kinds
    lines = [KINDS[kind](k) for k, kind in enumerate(kinds)]
    flags = {"dataset": [rows(lines) + count], "max_length": 60, "dataset_shuffle": shuffle}
    try:
        found, run = prepared(**flags, split_dataset_ratio=ratio)
    except DataError as error:  # none was drawn that can be used
        assert "can be used" in str(error) or "longer than --max_length" in str(error)
        return
    (one,) = run.record.notes["data"]["datasets"]
    assert one["selected"] == one["train"] + one["eval"] + sum(one["dropped"].values())
    assert one["read"] + one["repeated"] == one["selected"] + one["not_sampled"]
    assert one["made"] == 0
    assert set(one["dropped"]) <= {REASONS[kind] for kind in kinds if kind != "used"}
    for samples, used in ((found.train, one["train"]), (found.eval, one["eval"])):
        assert (0 if samples is None else len(samples)) == 2 * used
        for k in range(used):
            assert samples.origin(2 * k) == samples.origin(2 * k + 1)
            assert kinds[samples.origin(2 * k).line - 1] == "used"
            assert [samples[2 * k].length < samples[2 * k + 1].length] == [True]
    tokens = sum(int(samples.lengths.sum()) for samples in (found.train, found.eval) if samples is not None)
    assert one["tokens"] == tokens


@pytest.mark.parametrize("more", [{"dataset_num_proc": 2}, {"interleave_prob": [0.3, 0.7]}])
def test_processes_and_mixtures_take_pairs_as_they_take_rows(more, prepared, rows):
    flags = {"dataset": [rows(MANY[:9]), rows(MANY[9:])], "data_seed": 3}
    pairs, single = (prepared(mode, **flags, **more)[0].train for mode in ("rlhf", "train"))
    assert [pairs.origin(k) for k in range(0, len(pairs), 2)] == [single.origin(k) for k in range(len(single))]
    assert contents(pairs)[::2] == [
        (*one[:2], mine[2], *one[3:]) for one, mine in zip(contents(single), contents(pairs)[::2], strict=True)
    ]


# Length


@given(shared=st.integers(0, 12), first=st.integers(1, 12), second=st.integers(1, 12), limit=st.integers(1, 20))
def test_both_sides_fit_and_lose_the_same_of_what_they_share(shared, first, second, limit):
    chosen = np.concatenate([np.zeros(shared, int), np.full(first, 1)])
    rejected = np.concatenate([np.zeros(shared, int), np.full(second, 2)])
    lost = cut_alike(chosen, rejected, limit)
    kept = [chosen[lost[0] :], rejected[lost[1] :]]
    assert max(map(len, kept)) <= limit
    assert sum(kept[0] == 0) == sum(kept[1] == 0)  # as much of the prompt
    for one, count, length in zip(kept, lost, (first, second), strict=True):
        assert sum(one > 0) == min(length, limit)  # the answer whole, or as much of it as fits
        assert count == 0 or max(map(len, (chosen, rejected))) > limit
    assert lost == cut_alike(rejected, chosen, limit)[::-1]


def test_the_prompt_is_cut_alike_on_the_left(prepared, rows):
    long = pair("Say it. " * 20, "short.", "a rather long answer, with many words.")
    whole, _ = prepared(dataset=[rows([long])])
    cut, _ = prepared(dataset=[rows([long])], max_length=60, truncation_strategy="left")
    lost = [one.length - two.length for one, two in zip(whole.train, cut.train, strict=True)]
    assert lost[0] == lost[1] == max(whole.train.lengths) - 60
    for one, two in zip(whole.train, cut.train, strict=True):
        assert one.input_ids[-two.length :].tolist() == two.input_ids.tolist()
        assert one.labels[-two.length :].tolist() == two.labels.tolist()


class Numbers:
    """A template whose tokens are the numbers in the messages, each weighing a tenth of itself."""

    def __init__(self, max_length, several=False):
        self.max_length, self.several = max_length, several

    def encode_batch(self, rows):
        found = []
        for row in rows:
            ids = [int(word) for message in row["messages"] for word in message["content"].split()]
            kept = ids if self.max_length is None else ids[-self.max_length :]
            one = Encoded(kept, kept, [token / 10 for token in kept])
            found.append([one, one] if self.several else one)
        return found


def numbers(text):
    return [{"role": "assistant", "content": text}]


def test_weights_are_cut_with_their_tokens():
    row = {"messages": numbers("1 2 3 4 5 6"), "rejected_messages": numbers("1 2 3 7")}
    template = Numbers(4)
    (pair,) = MODES["rlhf"].encode(template, [row], "left")
    assert [one.input_ids for one in pair] == [[3, 4, 5, 6], [3, 7]]
    assert [one.token_weights for one in pair] == [[0.3, 0.4, 0.5, 0.6], [0.3, 0.7]]
    assert template.max_length == 4  # the caller's own is as it was


@pytest.mark.parametrize("mode", ["rlhf", "kto"])
def test_a_template_that_splits_by_itself_is_told(mode):
    row = {"messages": numbers("1 2"), "rejected_messages": numbers("1 3"), "label": True}
    (refused,) = MODES[mode].encode(Numbers(9, several=True), [row], "delete")
    assert isinstance(refused, Refused)
    assert "its template makes several samples of it" in refused.detail


def test_answers_that_a_cut_makes_equal_are_dropped(prepared, rows):
    line = pair(chosen="word " * 60 + "good.", rejected="word " * 60 + "bad.")
    found, run = prepared(dataset=[rows([pair(), line])], max_length=50, truncation_strategy="right")
    assert len(found.train) == 2
    assert run.record.notes["data"]["totals"]["dropped"] == {"equal answers": 1}


@pytest.mark.parametrize("strategy", ["delete", "right"])
def test_a_pair_is_cut_or_dropped_as_a_row_is(strategy, prepared, rows):
    lines = [pair(), pair(rejected="a much longer answer than all the others are."), pair(chosen="yes " * 30)]
    flags = {"dataset": [rows(lines)], "max_length": 30, "truncation_strategy": strategy, "dataset_shuffle": False}
    found, _ = prepared(**flags)
    assert max(found.train.lengths) <= 30
    assert len(found.train) == (2 if strategy == "delete" else 6)


def asked(prompt, answer):
    return Encoded([*range(1, prompt + answer + 1)], [-100] * prompt + [*range(prompt + 1, prompt + answer + 1)])


class Ready:
    """A template for rows that are encoded already, which it cuts from the left."""

    def __init__(self, max_length):
        self.max_length = max_length

    def encode_batch(self, rows):
        kept = slice(0 if self.max_length is None else -self.max_length, None)
        return [Encoded(one.input_ids[kept], one.labels[kept]) for one in (row["made"] for row in rows)]


@given(st.integers(0, 9), st.integers(1, 12), st.integers(1, 15))
def test_a_cut_from_the_left_leaves_a_labelled_answer_its_prompt(prompt, answer, limit):
    row, whole = {"made": asked(prompt, answer), "label": True}, prompt + answer
    (found,) = MODES["kto"].encode(Ready(limit), [row], "left")
    if prompt and answer >= limit:
        assert found == Refused("too long", f"{whole} tokens; the last {limit} hold nothing of its prompt")
    else:
        assert found == Ready(limit).encode_batch([row])[0]  # with nothing lost, or a row that never had a prompt
