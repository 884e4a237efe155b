"""Any row of any layout becomes a standard row or is refused with a reason, alone and among others."""

from __future__ import annotations

import copy
import csv
import datetime
import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.specs import load
from martlet_data.api import RowError, load_rows
from martlet_data.convert import Converter, Layout
from martlet_data.plugin import provide_preprocessors
from martlet_data.standard import STANDARD_COLUMNS, standardise

LAYOUTS = [
    Layout(columns, spec.name, load(spec.target), ours=True)
    for spec in provide_preprocessors()
    for columns in spec.columns
]
COLUMNS = sorted(
    STANDARD_COLUMNS.union(*(one.columns for one in LAYOUTS))
    | {"system", "system_prompt", "history", "functions", "output", "answer", "completion", "solution"}
    | {"rejected_response", "chosen", "positive", "negative", "image", "video", "audio"}
)
KEYS = ["role", "from", "content", "value", "tool_calls", "function_call", "function", "name", "arguments", "input"]
KEYS += ["type", "text", "thinking", "image", "image_url", "source", "url", "data", "bytes", "weight", "loss", "human"]
KEYS += ["assistant", "ref", "bbox", "bbox_type", "image_id", "id", "tool_use_id", "input_schema", "parameters"]
WORDS = ["user", "assistant", "system", "tool", "tool_call", "human", "gpt", "text", "thinking", "tool_use", "image"]
WORDS += ["tool_result", "<image>", "<bbox>", "", " ", "\ud800", "[1]", "{", "https://example.org/a.png", "real"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=4)
OTHERS = st.sampled_from([b"x", datetime.datetime(2020, 1, 1), 10**400])
"""What Parquet files hold beside JSON, and a number that no float holds."""


def nested(leaves):
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
        max_leaves=10,
    )


VALID = [
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "image", "image": "data:,"}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}], "loss": True, "weight": 1},
            {"role": "tool_call", "content": '{"name": "f", "arguments": {"a": [1]}}'},
            {"role": "tool", "content": "r"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        ],
        "tools": [{"name": "f", "input_schema": {}}],
        "rejected_response": [{"role": "assistant", "content": "b"}],
        "positive": ["p", [{"role": "user", "content": "p"}]],
        "objects": {"ref": ["a"], "bbox": [[1, 2, 3, 4]], "image_id": [0]},
        "label": [1],
        "margin": 1.0,
        "channel": "c",
    },
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
    {"conversation": [{"human": "q", "assistant": "a"}], "images": ["data:,"]},
    {"instruction": "i", "input": "j", "output": "o", "history": [["a", "b"]]},
    {"prompt": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": {"role": "assistant", "content": "b"}},
    {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": "b"},
    {"text": "t", "solution": {"a": 1}},
]


def holes(value, path=()):
    """List the paths of all values inside one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(hole for key, item in items for hole in holes(item, (*path, key)))]


HOLES = [(number, path) for number, row in enumerate(VALID) for path in holes(row)[1:]]


def settled(row):
    """Convert a row and check what is promised of any."""
    before = copy.deepcopy(row)
    try:
        found = Converter(LAYOUTS)(row)
    except RowError as error:
        assert error.reason != "preprocessor failed", error.detail
        found = None
    assert repr(row) == repr(before)
    for made in found or ():
        assert all(isinstance(message["content"], str) for message in made["messages"])
        assert standardise(made) == made
        assert Converter(LAYOUTS)(made) == [made]
    return found


@pytest.mark.parametrize("row", VALID, ids=lambda row: next(iter(row)))
def test_the_rows_that_are_damaged_below_are_good(row):
    assert settled(row)


@settings(max_examples=300)
@given(st.sampled_from(HOLES), nested(LEAVES | OTHERS))
def test_any_value_at_any_depth_of_any_layout_is_standardised_or_refused(hole, value):
    number, path = hole
    row = copy.deepcopy(VALID[number])
    at = row
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    settled(row)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(COLUMNS), nested(LEAVES), min_size=1, max_size=5))
def test_any_columns_are_standardised_or_refused(row):
    settled(row)


@settings(max_examples=150)
@given(st.sampled_from(COLUMNS), nested(LEAVES))
def test_any_cell_of_json_text_is_standardised_or_refused(column, value):
    settled({"query": "q", "response": "a", column: json.dumps(value)})


def test_a_layout_may_make_several_rows_of_what_a_dataset_gives():
    twice = Layout(frozenset({"pair"}), "pair", lambda row: [asked(q) for q in row["pair"]])
    found = Converter([twice, *LAYOUTS], target=lambda row: {"pair": row["both"]}, label="named")({"both": ["a", "b"]})
    assert questions(found) == ["a", "b"]


def test_a_reason_says_where():
    nested_deep = json.loads("[" * 500 + "]" * 500)
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": [nested_deep]}]}
    with pytest.raises(RowError, match=r"message 2 \(assistant\) has a part of type 'a list'"):
        Converter(LAYOUTS)(row)


MIXED = [
    {"messages": [{"role": "user", "content": "q0"}, {"role": "assistant", "content": "a"}]},
    {"conversations": [{"from": "human", "value": "q1"}, {"from": "gpt", "value": "a"}]},
    {"instruction": "q2", "output": "a"},
    {"query": "q3", "response": "a"},
    {"prompt": "q4", "completion": "a"},
]
QUESTIONS = [f"q{number}" for number in range(len(MIXED))]


def asked(question):
    return {"messages": [{"role": "user", "content": question}]}


def questions(rows):
    return [row["messages"][0]["content"] for row in rows]


def test_layouts_may_mix_in_a_file_and_differ_between_datasets(tmp_path, data_run, write_jsonl):
    whole = str(write_jsonl(tmp_path / "mixed.jsonl", [*MIXED, {"unknown": 1}]))
    apart = [str(write_jsonl(tmp_path / f"{number}.jsonl", [row])) for number, row in enumerate(MIXED)]
    found = load_rows(data_run(max_dropped=0.5), [whole, *apart])
    assert questions(found) == QUESTIONS * 2
    assert [sum(one.layouts.values()) for one in found.ledger.datasets] == [5, 1, 1, 1, 1, 1]
    assert [(drop.reason, drop.id.line) for drop in found.ledger.rows] == [("unknown layout", 6)]


def test_nulls_that_a_parquet_file_adds_hide_no_layout(tmp_path, data_run):
    wide = {name: None for row in MIXED for name in row}
    rows = [{**wide, **row} for row in MIXED]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "wide.parquet")
    found = load_rows(data_run(remove_unused_columns=False), [str(tmp_path / "wide.parquet")])
    assert questions(found) == QUESTIONS
    assert all(row.keys() == {"messages"} for row in found)


def test_cells_of_a_csv_file_hold_json(tmp_path, data_run):
    row = {
        "messages": json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}]),
        "tools": json.dumps([{"name": "f"}]),
        "rejected": "bad",
        "label": "true",
        "margin": "0.5",
        "images": json.dumps(["https://example.org/a.png"]),
        "objects": json.dumps({"bbox": [[1, 2]]}),
        "positive": json.dumps(["p", "o"]),
        "channel": "",
    }
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    (found,) = load_rows(data_run(), [str(tmp_path / "rows.csv")])
    assert found["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert (found["label"], found["margin"], len(found["positive_messages"])) == (True, 0.5, 2)
    assert found["rejected_messages"][-1]["content"] == "bad"
    assert (found["images"], found["objects"]["bbox"]) == (["https://example.org/a.png"], [[1, 2]])
    assert "channel" not in found


def test_history_in_a_cell_is_json():
    (found,) = Converter(LAYOUTS)({"query": "q", "response": "a", "history": '[["b", "c"]]'})
    assert [message["content"] for message in found["messages"]] == ["b", "c", "q", "a"]
