"""``martlet data check``: the same rows as training, and a report to look at."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.cli import main
from martlet_data.findings import QUANTILES, findings
from martlet_data.packing import pack
from martlet_data.prepare import prepare

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello you"}]}
EMPTY = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]}
NASTY = "<script>alert(1)</script> & \"'</pre></main>\u202e\x00"


@pytest.fixture
def checked(tiny_model, capsys, tmp_path, monkeypatch):
    """Return a function that runs the command in a folder of its own and returns status and output."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main(["data", "check", "--model", str(tiny_model), *map(str, words)])
        return code, capsys.readouterr()

    return call


class Page(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.marked = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "mark":
            self.marked.append([dict(attrs).get("title", ""), ""])

    def handle_data(self, data):
        self.text += data
        if self.marked and self.tags[-1] == "mark" and not self.marked[-1][1]:
            self.marked[-1][1] = data


def page(path="data-report.html"):
    return Page(Path(path).read_text(encoding="utf-8"))


def test_the_report_is_one_file_that_fetches_nothing(checked, chats):
    code, said = checked("--dataset", chats(30))
    assert code == 0
    assert "Report: data-report.html" in said.out
    found = page()
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not {"src", "href", "onload", "onclick"} & {name for name, _ in found.attributes}
    assert "url(" not in Path("data-report.html").read_text(encoding="utf-8")
    assert not Path("data-report.dropped.jsonl").exists()


def test_the_ledgers_are_those_of_training(checked, chats, write_jsonl, tmp_path, data_run, bound):
    rows = [GOOD] * 30 + [EMPTY, "{", {**GOOD, "messages": [{"role": "narrator", "content": "x"}]}]
    mixed, clean = str(write_jsonl(tmp_path / "mixed.jsonl", rows)), chats(12)
    code, said = checked(
        "--dataset", mixed, clean + "#20", "--split_dataset_ratio", "0.2", "--max_dropped", "0.5", "--json"
    )
    found = json.loads(said.out)
    run = data_run(dataset=[mixed, clean + "#20"], split_dataset_ratio=0.2, max_dropped=0.5)
    prepared = prepare(run, bound(run))
    assert code == 0
    assert found["usable"] is True
    assert {name: found[name] for name in ("totals", "datasets")} == prepared.ledger.as_dict()
    lengths = np.concatenate([prepared.train.lengths, prepared.eval.lengths])
    assert found["lengths"]["max"] == lengths.max()
    assert found["lengths"]["mean"] == round(float(lengths.mean()), 1)
    assert found["packing"]["rows"] == len(prepared.train)
    dropped = [json.loads(line) for line in Path("data-report.dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(one["line"], one["reason"]) for one in dropped] == [
        (one.id.line, one.reason) for one in prepared.ledger.rows
    ]
    assert {one["line"] for one in dropped} == {31, 32, 33}


def test_what_cannot_be_used_is_status_1_and_still_reported(checked, write_jsonl, tmp_path):
    file = write_jsonl(tmp_path / "rows.jsonl", [GOOD, EMPTY, EMPTY])
    code, said = checked("--dataset", file)
    assert code == 1
    assert "2 of 3 rows (66.7%) cannot be used, more than --max_dropped 0.1 allows" in said.out
    text = page().text
    assert "cannot be used as they are" in text
    assert f"{file}:3" in text
    assert "message 2 (assistant) is empty" in text


def test_a_dataset_of_which_nothing_is_left_is_reported(checked, write_jsonl, tmp_path):
    code, _ = checked("--dataset", write_jsonl(tmp_path / "rows.jsonl", [EMPTY]))
    assert code == 1
    assert "none of its 1 rows can be used" in page().text


def test_the_first_bad_row_stops_a_strict_check(checked, write_jsonl, tmp_path):
    code, said = checked("--dataset", write_jsonl(tmp_path / "rows.jsonl", [GOOD, EMPTY]), "--strict", "true")
    assert code == 1
    assert "rows.jsonl:2: empty content" in said.err
    assert not Path("data-report.html").exists()


def test_texts_and_names_are_text_in_the_report(checked, write_jsonl, tmp_path):
    row = {"messages": [{"role": "user", "content": NASTY}, {"role": "assistant", "content": f"Yes {NASTY}"}]}
    bad = {"messages": [{"role": "<script>x</script>", "content": "Hi"}]}
    file = write_jsonl(tmp_path / "<script>y<b>.jsonl", [row] * 20 + [bad])
    code, _ = checked("--dataset", file, "--system", "<script>z</script>")
    assert code == 0
    found = page()
    assert "script" not in found.tags
    for text in (
        "<script>x</script>",
        "<script>y<b>.jsonl:21",
        "<script>z</script>",
        "<script>alert(1)</script> & \"'",
    ):
        assert text in found.text


def test_supervised_text_is_marked_with_its_weight(checked, write_jsonl, tmp_path):
    row = {"messages": [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "Thought: x\nAction: y"}]}
    checked("--dataset", write_jsonl(tmp_path / "rows.jsonl", [row]), "--loss_scale", "react")
    marked = [(title, text.strip()) for title, text in page().marked if title]
    assert marked == [("weight 1", "Thought: x"), ("weight 2", "Action: y"), ("weight 1", "<|im_end|>")]


def test_samples_are_as_many_as_asked_for_and_long_ones_are_cut(checked, write_jsonl, tmp_path):
    long = {"messages": [GOOD["messages"][0], {"role": "assistant", "content": "word and word " * 1000}]}
    file = write_jsonl(tmp_path / "rows.jsonl", [long, GOOD, GOOD, GOOD])
    checked("--dataset", file, "--n", "2", "--dataset_shuffle", "false", "--max_length", "9000")
    found = page()
    assert found.tags.count("figure") == 2
    assert "more tokens" in found.text
    checked("--dataset", file, "--n", "9", "--max_length", "9000")
    assert page().tags.count("figure") == 4


def test_packing_at_a_given_length(checked, write_jsonl, tmp_path):
    long = {"messages": [GOOD["messages"][0], {"role": "assistant", "content": "word " * 200}]}
    file = write_jsonl(tmp_path / "rows.jsonl", [GOOD] * 8 + [long])
    _, said = checked("--dataset", file, "--json")
    short = json.loads(said.out)["lengths"]["min"]
    _, said = checked("--dataset", file, "--packing_length", 2 * short, "--json")
    packing = json.loads(said.out)["packing"]
    assert packing == {"capacity": 2 * short, "rows": 8, "too_long": 1, "packs": 4, "fill": 1.0}
    assert "Rows longer than a pack: 1." in page().text


def test_a_file_that_is_no_report_is_not_replaced(checked, chats):
    Path("notes.html").write_text("mine", encoding="utf-8")
    code, said = checked("--dataset", chats(3), "--report", "notes.html")
    assert code == 2
    assert "--report notes.html: a file that is no report of data check is there" in said.err
    assert Path("notes.html").read_text(encoding="utf-8") == "mine"


def test_an_older_report_is_replaced_and_that_is_told(checked, chats, write_jsonl, tmp_path):
    checked("--dataset", write_jsonl(tmp_path / "rows.jsonl", [GOOD] * 20 + [EMPTY]))
    assert Path("data-report.dropped.jsonl").read_text(encoding="utf-8").count("\n") == 1
    code, said = checked("--dataset", chats(3))
    assert code == 0
    assert "Report: data-report.html, in place of the one of" in said.out
    assert Path("data-report.dropped.jsonl").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize(("path", "said"), [(".", "this is a folder"), ("none/r.html", "there is no folder none")])
def test_a_path_that_cannot_take_a_report_is_said_first(checked, chats, path, said):
    code, out = checked("--dataset", chats(3), "--report", path)
    assert code == 2
    assert said in out.err
    assert "Encoded" not in out.err


def test_no_report_where_none_is_wanted(checked, chats):
    code, _ = checked("--dataset", chats(3), "--report", "None")
    assert code == 0
    assert not list(Path().glob("data-report*"))


def test_what_it_needs_and_what_it_does_not_take(checked, chats):
    code, said = checked()
    assert code == 2
    assert "data check needs data" in said.err
    code, said = checked("--dataset", chats(3), "--streaming", "true")
    assert code == 2
    assert "leave out --streaming" in said.err


@given(st.lists(st.tuples(st.integers(1, 9000), st.floats(0, 1)), min_size=1, max_size=50), st.integers(1, 9000))
def test_every_row_is_in_every_sum(rows, capacity):
    lengths = np.array([length for length, _ in rows])
    counts = np.array([int(length * share) for length, share in rows])
    found = findings(lengths, counts, lengths, capacity, {})
    assert sum(found.lengths.counts) == sum(found.shares.counts) == len(rows)
    assert found.lengths.edges[-1] > lengths.max()
    assert len(found.lengths.counts) <= 41
    for percent, tokens in found.quantiles.items():
        assert 100 * (lengths <= tokens).sum() >= percent * len(rows)
        assert 100 * (lengths < tokens).sum() < percent * len(rows)
    assert list(found.quantiles) == list(QUANTILES)
    packing = found.packing
    assert packing.rows + packing.too_long == len(rows)
    assert packing.too_long == (lengths > capacity).sum()
    assert sum(packing.fills.counts) == packing.packs
    assert packing.fill * packing.packs * capacity == pytest.approx(lengths[lengths <= capacity].sum())


def test_evaluation_data_alone_can_be_checked(checked, chats):
    code, said = checked("--val_dataset", chats(5), "--json")
    found = json.loads(said.out)
    assert code == 0
    assert (found["totals"]["train"], found["totals"]["eval"], found["packing"]["rows"]) == (0, 5, 5)
    assert page().tags.count("figure") == 3


def test_flags_that_only_loading_reads_are_refused(checked, chats):
    for command in ("check", "preview"):
        assert main(["data", command, "--dataset", chats(2), "--attn_impl", "eager"]) == 2
    code, said = checked("--dataset", chats(2), "--torch_dtype", "float32")
    assert code == 2
    assert "--torch_dtype: data check has no such flag" in said.err


def test_nothing_left_to_train_on_cannot_be_used(checked, chats):
    code, said = checked("--dataset", chats(4), "--split_dataset_ratio", "1.0", "--report", "None")
    assert code == 1
    assert "Cannot be used. No row is left to train on; lower --split_dataset_ratio" in said.out


def test_rows_to_evaluate_on_alone_can_be_used(checked, chats):
    code, _ = checked("--val_dataset", chats(4), "--report", "None")
    assert code == 0


PAIRS = [{"query": f"What follows {k}?", "response": f"{k + 1}.", "rejected_response": "No idea."} for k in range(6)]
ODD = [{"query": "Alone?", "response": "Yes."}, {"query": "Twice?", "response": "a", "rejected_response": "a"}]


def test_pairs_are_counted_with_the_length_of_both_sides(checked, write_jsonl, tmp_path, data_run, bound):
    file = str(write_jsonl(tmp_path / "pairs.jsonl", PAIRS + ODD))
    words = ("--dataset", file, "--template_mode", "rlhf", "--max_dropped", "0.5", "--max_length", "64")
    code, said = checked(*words, "--json")
    found = json.loads(said.out)
    run = data_run(dataset=[file], max_dropped=0.5)
    prepared = prepare(run, bound(run), mode="rlhf")
    assert code == 0
    assert found["totals"]["train"] == 6
    assert found["totals"]["dropped"] == {"equal answers": 1, "nothing rejected": 1}
    for kind, side in zip(found["kinds"], (0, 1), strict=True):
        lengths = prepared.train.lengths[side::2]
        learnt = sum(int((prepared.train[k].labels != -100).sum()) for k in range(side, 12, 2))
        assert (kind["name"], kind["samples"], kind["most"]) == (("chosen", "rejected")[side], 6, lengths.max())
        assert kind["mean"] == round(float(lengths.mean()), 1)
        assert kind["supervised"] == round(learnt / 6, 1)
    packing = found["packing"]
    assert (packing["rows"], packing["capacity"]) == (6, 128)  # a pair may be twice as long as a row
    assert packing["packs"] == len(pack(prepared.train.lengths.reshape(-1, 2).sum(1), 128))
    shown = page()
    assert "chosen" in shown.text
    assert shown.text.count(", rejected: ") == shown.text.count(", chosen: ") == 3
    _, said = checked(*words)
    assert re.search(r"rejected: 6 samples of [\d.]+ tokens, at most \d+; [\d.]+ are trained on", said.out)
    assert "Packing: 6 rows fill" in said.out


def test_the_balance_of_labels_is_told(checked, write_jsonl, tmp_path):
    rows = [{**GOOD, "label": k < 5} for k in range(7)]
    _, said = checked("--dataset", str(write_jsonl(tmp_path / "l.jsonl", rows)), "--template_mode", "kto", "--json")
    kinds = json.loads(said.out)["kinds"]
    assert [(one["name"], one["samples"]) for one in kinds] == [("label true", 5), ("label false", 2)]
    rows = [{**GOOD, "label": True}] * 3
    _, said = checked("--dataset", str(write_jsonl(tmp_path / "l.jsonl", rows)), "--template_mode", "kto")
    assert "label false: 0 samples" in said.out
