"""``martlet data preview``: what the model sees, and what it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import martlet
from martlet.cli import main
from martlet_data.api import write_cached_dataset


@pytest.fixture
def preview(tiny_model, capsys):
    """Return a function that runs the command and returns its status and output."""

    def call(*words):
        code = main(["data", "preview", "--model", str(tiny_model), *map(str, words)])
        return code, capsys.readouterr()

    return call


def test_json_has_text_ids_labels_and_weights(preview, chats, tiny_tokenizer):
    code, said = preview("--dataset", chats(5), "--n", 2, "--json")
    found = [json.loads(line) for line in said.out.splitlines()]
    assert code == 0
    assert len(found) == 2
    for k, one in enumerate(found):
        messages = [
            {"role": "user", "content": f"What follows {k}?"},
            {"role": "assistant", "content": f"It is {k + 1}."},
        ]
        assert one["text"] == tiny_tokenizer.apply_chat_template(messages, tokenize=False)
        assert one["input_ids"] == tiny_tokenizer.apply_chat_template(messages, return_dict=False)
        learnt = [token for token, label in zip(one["input_ids"], one["labels"], strict=True) if label != -100]
        assert tiny_tokenizer.decode(learnt) == f"It is {k + 1}.<|im_end|>"
        assert one["token_weights"] == [float(label != -100) for label in one["labels"]]
        assert one["line"] == k + 1


def test_supervised_text_is_marked(preview, chats):
    code, said = preview("--dataset", chats(1))
    assert code == 0
    assert "What follows 0?" in said.out
    assert "⟦It is 1.<|im_end|>⟧" in said.out


def test_supervised_text_is_coloured_where_colours_are(preview, chats, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    _, said = preview("--dataset", chats(1))
    assert "\x1b[1;32mIt is 1.<|im_end|>\x1b[0m" in said.out


def test_a_row_that_cannot_be_used_stands_in_its_place(preview, tmp_path, write_jsonl):
    rows = ["{", {"query": "a", "response": "b"}, {"query": "a"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    code, said = preview("--dataset", path, "--json")
    found = [json.loads(line) for line in said.out.splitlines()]
    assert code == 0
    assert [one.get("refused") for one in found] == ["malformed JSON", None, "nothing supervised"]
    assert [one["line"] for one in found] == [1, 2, 3]
    code, said = preview("--dataset", path, "--n", 1)
    assert code == 1
    assert "refused, malformed JSON" in said.out


def test_strict_stops_at_a_bad_row(preview, tmp_path, write_jsonl):
    code, said = preview("--dataset", write_jsonl(tmp_path / "rows.jsonl", ["{"]), "--strict", "true")
    assert code == 1
    assert "rows.jsonl:1: malformed JSON" in said.err


def test_each_dataset_is_shown(preview, chats):
    words = ("--dataset", chats(4, "a.jsonl"), chats(4, "b.jsonl"), "--val_dataset", chats(1, "c.jsonl"), "--json")
    shown = [json.loads(line)["file"][-7] for line in preview(*words)[1].out.splitlines()]
    assert "".join(shown) == "aaabbbc"


def test_truncated_rows_show_the_text_that_is_left(preview, chats, tiny_tokenizer):
    words = ("--dataset", chats(1), "--max_length", 8, "--truncation_strategy", "left", "--json")
    (one,) = [json.loads(line) for line in preview(*words)[1].out.splitlines()]
    assert len(one["input_ids"]) == 8
    assert one["text"] == tiny_tokenizer.decode(one["input_ids"])


def test_no_dataset_is_a_usage_error(preview):
    code, said = preview()
    assert code == 2
    assert "give --dataset" in said.err


@pytest.fixture
def cached(tiny_model, chats, tmp_path):
    """Return a cached dataset of three rows."""
    run = martlet.prepare("data preview", model=str(tiny_model), dataset=[chats(3)])
    template = run.one("templates").bind(run.one("models").load_processor(run), run)
    folder = tmp_path / "cached"
    folder.mkdir()
    write_cached_dataset(run, template, folder, "train")
    return folder / "train"


def test_a_cached_dataset_is_shown(preview, cached):
    code, said = preview("--cached_dataset", cached, "--n", 2)
    assert code == 0
    assert "⟦It is 1.<|im_end|>⟧" in said.out
    assert "⟦It is 2.<|im_end|>⟧" in said.out


def test_a_cached_dataset_that_does_not_fit_is_refused(preview, cached):
    code, said = preview("--cached_val_dataset", cached, "--loss_scale", "all")
    assert code == 2
    assert "made with another model or template than this run's" in said.err


def test_a_long_path_does_not_hide_the_counts(preview, chats, tmp_path):
    deep = tmp_path / ("long" * 20) / "rows.jsonl"
    deep.parent.mkdir()
    deep.write_bytes(Path(chats(1)).read_bytes())
    _, said = preview("--dataset", deep)
    first = said.out.splitlines()[0]
    assert "/rows.jsonl:1: " in first
    assert "supervised (" in first


PAIR = {"query": "Yes or no?", "response": "Yes.", "rejected_response": "No, or so I am told.", "label": False}


@pytest.fixture
def pairs(tmp_path, write_jsonl):
    alone = {"query": "Alone?", "response": "Yes."}
    return str(write_jsonl(tmp_path / "pairs.jsonl", [PAIR, alone, {**PAIR, "query": "Again?", "label": True}, PAIR]))


def test_both_sides_of_a_pair_are_shown_with_their_masks(preview, pairs, tiny_tokenizer):
    _, said = preview("--dataset", pairs, "--template_mode", "rlhf", "--n", 3, "--json")
    first, second, refused, third, fourth = [json.loads(line) for line in said.out.splitlines()]
    for one, name, answer in ((first, "chosen", "Yes."), (second, "rejected", "No, or so I am told.")):
        learnt = [token for token, label in zip(one["input_ids"], one["labels"], strict=True) if label != -100]
        assert (one["sample"], one["line"]) == (name, 1)
        assert tiny_tokenizer.decode(learnt) == f"{answer}<|im_end|>"
        assert one["text"].endswith(f"{answer}<|im_end|>\n")
    assert refused["refused"] == "nothing rejected"
    assert [third["sample"], fourth["sample"]] == ["chosen", "rejected"]
    _, said = preview("--dataset", pairs, "--template_mode", "rlhf", "--n", 1)
    assert "pairs.jsonl:1, chosen: " in said.out
    assert "⟦No, or so I am told.<|im_end|>⟧" in said.out


def test_a_label_is_shown(preview, pairs):
    _, said = preview("--dataset", pairs, "--template_mode", "kto", "--n", 3, "--json")
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [one.get("sample", one.get("refused")) for one in found] == ["label false", "bad label", "label true"]


def test_a_cached_dataset_is_shown_in_the_mode_that_it_was_made_for(preview, pairs, tmp_path, tiny_model):
    run = martlet.prepare("data preview", model=str(tiny_model), dataset=[pairs], max_dropped=0.5)
    template = run.one("templates").bind(run.one("models").load_processor(run), run)
    (tmp_path / "cached").mkdir()
    write_cached_dataset(run, template, tmp_path / "cached", "rlhf")
    words = ("--cached_dataset", tmp_path / "cached" / "train", "--json")
    code, said = preview(*words)
    assert code == 2
    assert "written with --template_mode rlhf; data preview takes train" in said.err
    code, said = preview(*words, "--template_mode", "rlhf", "--n", 1)
    assert (code, len(said.out.splitlines())) == (0, 2)
