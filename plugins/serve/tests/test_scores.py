"""Scoring the rows of a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import martlet
from martlet import UsageError
from martlet.cli import main


@pytest.fixture(params=[1, 2])
def labels(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def classifier(labels: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=labels)
    model.save_pretrained(tmp_path / "classifier")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    def talk(question: str, answer: str, **more: Any) -> dict[str, Any]:
        asked = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": asked, "source": f"page {question}", **more}

    found = [talk("one", "yes"), talk("two", "word " * 60), talk("three", "no", rejected_response="maybe")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def infer(model: Path, rows: Path, **flags: Any) -> list[dict[str, Any]]:
    done = martlet.run("infer", model=str(model), task_type="seq_cls", val_dataset=[str(rows)], **flags)
    return [json.loads(line) for line in done.path.read_text().splitlines()]


def plain(folder: Path, line: dict[str, Any]) -> list[float]:
    """Score the conversation of a result line with transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(line["messages"], return_tensors="pt", return_dict=False)
    with torch.no_grad():
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        numbers: list[float] = model(input_ids=ids).logits[0].tolist()
    return numbers


def test_every_row_gets_the_score_of_its_conversation(classifier: Path, labels: int, rows: Path) -> None:
    found = infer(classifier, rows, max_batch_size=2)
    assert [line["source"] for line in found] == ["page one", "page two", "page three"]
    for line in found:
        response = [line["response"]] if labels == 1 else line["response"]
        assert response == pytest.approx(plain(classifier, line), abs=1e-5)
        assert line["messages"][-1]["role"] == "assistant"


def test_a_row_that_cannot_be_scored_does_not_cost_the_others(classifier: Path, rows: Path) -> None:
    whole, cut = infer(classifier, rows, max_batch_size=3), infer(classifier, rows, max_length=32, max_batch_size=3)
    assert cut[1]["response"] is None
    assert "too long" in cut[1]["error"]
    assert cut[0]["response"] == pytest.approx(whole[0]["response"], abs=1e-5)
    assert cut[2]["response"] == pytest.approx(whole[2]["response"], abs=1e-5)


@pytest.mark.parametrize("labels", [1], indirect=False)
def test_there_is_no_chat_with_scores(classifier: Path, labels: int) -> None:
    with pytest.raises(UsageError, match="there is no chat with it; name the conversations with --val_dataset"):
        martlet.run("infer", model=str(classifier), task_type="seq_cls")


@pytest.mark.parametrize("labels", [1], indirect=False)
def test_flags_of_generation_have_no_effect_and_that_is_said(
    classifier: Path, labels: int, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["infer", "--model", str(classifier), "--task_type", "seq_cls", "--val_dataset", str(rows)]
    assert main([*words, "--temperature", "0"]) == 0
    said = capsys.readouterr().err
    assert "--temperature has no effect: the model puts scores to conversations" in said
    assert " scores are in " in said


@pytest.mark.parametrize("labels", [1], indirect=False)
def test_an_engine_that_only_writes_is_refused(classifier: Path, labels: int, rows: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "writer.py"
    plugin.write_text(
        "from martlet import Engine, hookimpl\n\n\n"
        "@hookimpl\ndef provide_engines():\n    yield Engine('writer', object)\n"
    )
    with pytest.raises(UsageError, match="--infer_backend writer only writes text, and --task_type seq_cls asks it"):
        infer(classifier, rows, infer_backend="writer", external_plugins=[str(plugin)])
