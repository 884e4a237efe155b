"""Evaluation averages over tokens, and decides which checkpoint is the best."""

from __future__ import annotations

import json

import pytest
import torch

from martlet import UsageError
from martlet_train.checkpoint import follow


def evaluations(result):
    lines = json.loads((result.checkpoint / "trainer_state.json").read_text())["log_history"]
    return [line for line in lines if "eval_loss" in line]


def test_the_evaluation_loss_is_the_mean_over_all_tokens_whatever_the_batches(train, rows, tiny_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = {"max_steps": 1, "val_dataset": [str(rows)], "eval_on_start": True}
    found = [
        evaluations(train(**settings, per_device_eval_batch_size=size, padding_free=free))[0]
        for size, free in [(1, False), (4, False), (5, True)]
    ]
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    total = right = count = 0
    for line in map(json.loads, rows.read_text().splitlines()):
        answer = [*tokenizer(line["response"])["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([tokenizer(line["query"])["input_ids"] + answer])
        with torch.no_grad():
            logits = model(ids).logits[0, -len(answer) - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        right += (logits.argmax(-1) == torch.tensor(answer)).sum().item()
        count += len(answer)
    for line in found:
        assert line["eval_loss"] == pytest.approx(total / count, rel=1e-5)
        assert line["eval_token_acc"] == pytest.approx(right / count)


@pytest.mark.parametrize("limit", [1, 2])
def test_best_leads_to_the_checkpoint_with_the_best_metric_and_is_kept(train, rows, limit):
    """With a rising loss (a learning rate far too high) the first checkpoint stays the best."""
    result = train(
        max_steps=3,
        val_dataset=[str(rows)],
        save_steps=1,
        save_total_limit=limit,
        learning_rate=3.0,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
    )
    losses = [line["eval_loss"] for line in evaluations(result)]
    assert losses.index(min(losses)) == 0
    assert follow(result.folder / "best") == result.folder / "checkpoint-1"
    assert follow(result.folder / "last") == result.checkpoint == result.folder / "checkpoint-3"
    assert {path.name for path in result.folder.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-3"}
    assert result.metrics["best_loss"] == min(losses)


def test_best_is_the_best_of_the_checkpoints_that_there_are(train, rows):
    """The best evaluation, after step 1, has no checkpoint."""
    result = train(
        max_steps=4,
        val_dataset=[str(rows)],
        eval_strategy="steps",
        eval_steps=1,
        save_steps=2,
        learning_rate=3.0,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
    )
    losses = {line["step"]: line["eval_loss"] for line in evaluations(result)}
    assert min(losses, key=losses.get) == 1
    assert follow(result.folder / "best").name == f"checkpoint-{min((2, 4), key=losses.get)}"


def test_evaluation_follows_saving_unless_told_otherwise(train, rows):
    result = train(max_steps=4, save_steps=2, split_dataset_ratio=0.2)
    assert [line["step"] for line in evaluations(result)] == [2, 4]
    result = train(max_steps=2, save_steps=2, split_dataset_ratio=0.2, eval_strategy="no")
    assert evaluations(result) == []


def test_a_metric_that_does_not_exist_is_named(train, rows):
    with pytest.raises(UsageError, match=r"--metric_for_best_model token_ac: .* Did you mean token_acc"):
        train(max_steps=1, val_dataset=[str(rows)], metric_for_best_model="token_ac")
    with pytest.raises(UsageError, match=r"--metric_for_best_model loss_maths: .*--enable_channel_loss true"):
        train(max_steps=1, val_dataset=[str(rows)], metric_for_best_model="loss_maths")
