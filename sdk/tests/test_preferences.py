"""The preference task: the rule holds in every row, rows to evaluate on ask other things, a seed says it all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet_sdk.preferences import labels, main, merits, pairs, questions, write


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), held_out=st.booleans())
def test_the_preferred_answer_has_every_merit_and_the_other_lacks_one(seed, held_out):
    for row in pairs(40, seed, held_out=held_out):
        good, bad = (merits(row["query"], row[name]) for name in ("response", "rejected_response"))
        assert good == 3 > bad
        assert row["margin"] == pytest.approx((good - bad) / 3, abs=1e-3)
        assert row["query"] in dict(questions(held_out))


def test_labels_follow_the_rule_and_are_of_both_kinds():
    found = list(labels(200, 5))
    assert {merits(row["query"], row["response"]) == 3 for row in found if row["label"]} == {True}
    assert {merits(row["query"], row["response"]) == 3 for row in found if not row["label"]} == {False}
    assert 60 < sum(row["label"] for row in found) < 140


def test_every_way_to_be_worse_is_there():
    lacking = {3 - merits(row["query"], row["rejected_response"]) for row in pairs(100)}
    assert lacking == {1, 2, 3}


def test_what_is_evaluated_on_is_asked_nowhere_else():
    asked, held_out = ({question for question, _ in questions(held)} for held in (False, True))
    assert not asked & held_out
    assert (len(asked), len(held_out)) == (24, 8)


@pytest.mark.parametrize("answer", ["", "Gladly:", "the lamp is on the table", "Gladly: the key is in the drawer."])
def test_an_answer_that_lacks_something_is_judged_so(answer):
    assert merits("Where is the lamp?", answer) < 3


def test_the_same_seed_writes_the_same_files(tmp_path, capsys):
    main([str(tmp_path / "a"), "--rows", "20", "--seed", "3"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "a")
    write(tmp_path / "b", 20, 3)
    write(tmp_path / "c", 20, 4)
    names = ["labels-val.jsonl", "labels.jsonl", "pairs-val.jsonl", "pairs.jsonl"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        same, other = ((tmp_path / folder / name).read_text() for folder in "bc")
        assert (tmp_path / "a" / name).read_text() == same != other
        assert len([json.loads(line) for line in same.splitlines()]) == 20
