"""Scores of conversations, by a model with a score head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from martlet import UsageError
from martlet.protocols import Request


def talk(*contents: str) -> Request:
    roles = ("user", "assistant")
    return Request([{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)])


TALKS = [talk("a", "yes"), talk("which bird never lands?", "the swift"), talk("one", "two", "three", "four " * 9)]


@pytest.fixture(scope="session", params=[1, 3])
def classifier(request: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("classifier")
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=request.param)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def plain(model: Any, folder: Path, requests: list[Request]) -> list[list[float]]:
    """Score with transformers alone, one conversation at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.apply_chat_template(one.messages, return_tensors="pt", return_dict=False) for one in requests]
    with torch.no_grad():
        return [model.eval()(input_ids=one).logits[0].tolist() for one in ids]


@pytest.mark.parametrize("batch", [1, 2, -1])
def test_scores_are_those_of_plain_transformers(batch: int, classifier: Path, load: Any) -> None:
    engine = load(model=str(classifier), task_type="seq_cls", max_batch_size=batch)
    expected = plain(AutoModelForSequenceClassification.from_pretrained(classifier), classifier, TALKS)
    assert torch.allclose(torch.tensor(engine.score(TALKS)), torch.tensor(expected), atol=1e-5)


def test_an_adapter_brings_the_head(tiny_model: Path, tmp_path: Path, load: Any) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="SEQ_CLS")
    tuned = get_peft_model(base, settings)
    tuned.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "adapter")
    other = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    expected = plain(PeftModel.from_pretrained(other, tmp_path / "adapter"), tiny_model, TALKS)
    engine = load(adapters=[str(tmp_path / "adapter")], task_type="seq_cls", num_labels=1, max_batch_size=3)
    assert torch.allclose(torch.tensor(engine.score(TALKS)), torch.tensor(expected), atol=1e-5)


def test_a_conversation_without_an_answer_is_refused(classifier: Path, load: Any) -> None:
    with pytest.raises(UsageError, match=r"cannot be scored: nothing supervised .no message is of the role assistant"):
        load(model=str(classifier), task_type="seq_cls").score([talk("is anybody there?")])


def test_a_conversation_that_is_too_long_is_refused(classifier: Path, load: Any) -> None:
    engine = load(model=str(classifier), task_type="seq_cls", max_length=16)
    with pytest.raises(UsageError, match="the conversation cannot be scored: too long"):
        engine.score([talk("a", "word " * 100)])


def test_each_kind_of_model_is_asked_for_what_it_gives(classifier: Path, load: Any) -> None:
    with pytest.raises(UsageError, match="writes no text; ask it with score"):
        load(model=str(classifier), task_type="seq_cls").infer(TALKS)
    with pytest.raises(UsageError, match="load it with --task_type seq_cls"):
        load().score(TALKS)
