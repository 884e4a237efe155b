"""Reward models and KTO, as a person trains them, and what their checkpoints are good for afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from tiny_jobs import QUICK, SENTENCE, digests, logged, losses, newest, record, words_of, write_rows
from together import run_together, same_logs, same_weights
from transformers import AutoModelForSequenceClassification, AutoTokenizer

WORDS = SENTENCE.split()
STEPS: dict[str, Any] = {"command": "rlhf", "num_train_epochs": 4, "per_device_train_batch_size": 4, "logging_steps": 1}
RESUMED: dict[str, Any] = {**STEPS, "num_train_epochs": 2, "save_steps": 3, "lora_dropout": 0.2, "packing": True}
RESUMED |= {"packing_length": 256, "per_device_train_batch_size": 1, "split_dataset_ratio": 0.2}


def words(number: int, count: int) -> str:
    return " ".join(WORDS[(number * 7 + place) % len(WORDS)] for place in range(count))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Return pairs whose better answer is polite and short."""
    rows = [
        {
            "query": f"Say {number}: {words(number, 1 + number % 4)}?",
            "response": f"Please: {words(number + 1, 1 + number % 3)}.",
            "rejected_response": f"No! {words(number + 2, 2 + number % 7)}",
        }
        for number in range(20)
    ]
    return write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def labelled(pairs) -> Path:
    """Return the answers of these pairs, each labelled good or bad."""
    rows = []
    for number, row in enumerate(map(json.loads, pairs.read_text().splitlines())):
        good = number % 2 == 0
        rows.append(
            {"query": row["query"], "response": row["response" if good else "rejected_response"], "label": good}
        )
    return write_rows(pairs.with_name("labelled.jsonl"), rows)


def plain_scores(model: Any, folder: Path, lines: list[dict[str, Any]]) -> list[float]:
    """Score conversations with transformers alone, as one padded batch."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    texts = [tokenizer.apply_chat_template(line["messages"], tokenize=False) for line in lines]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        found: list[float] = model.eval()(**inputs).logits[:, 0].tolist()
    return found


def scored(typed: Any, rows: Path, out: Path, *words: object) -> list[dict[str, Any]]:
    done = typed("infer", *words, "--val_dataset", rows, "--result_path", out, "--max_batch_size", 4)
    assert done.code == 0, done.err
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_a_reward_model_is_read_by_transformers_and_scores_as_in_training(tuner, trained, typed, pairs, tmp_path):
    folder = trained(rlhf_type="rm", dataset=pairs, tuner_type=tuner, **STEPS)
    lines = [line for line in logged(folder) if "rewards/margins" in line]
    assert lines[-1]["rewards/margins"] > lines[0]["rewards/margins"] + 0.5
    assert lines[-1]["rewards/accuracies"] == 1
    checkpoint = newest(folder)
    if tuner == "full":
        flag, model = "--model", AutoModelForSequenceClassification.from_pretrained(checkpoint)
    else:
        flag, model = "--adapters", AutoPeftModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1)
    found = scored(typed, pairs, tmp_path / "scores.jsonl", flag, checkpoint)
    numbers = [line["response"] for line in found]
    assert numbers == pytest.approx(plain_scores(model, checkpoint, found), abs=1e-4)
    against = write_rows(
        tmp_path / "rejected.jsonl",
        [{"query": row["query"], "response": row["rejected_response"]} for row in map(json.loads, pairs.open())],
    )
    others = [line["response"] for line in scored(typed, against, tmp_path / "others.jsonl", flag, checkpoint)]
    assert all(better > worse for better, worse in zip(numbers, others, strict=True))
    chat = typed("infer", flag, checkpoint)
    assert chat.code == 2 and "there is no chat with it" in chat.error


def test_a_merged_reward_model_gives_the_scores_of_its_adapter(trained, typed, pairs, tmp_path):
    checkpoint = newest(trained(rlhf_type="rm", dataset=pairs, **STEPS))
    assert typed("merge-lora", "--adapters", checkpoint, "--output_dir", tmp_path / "merged").code == 0
    apart = scored(typed, pairs, tmp_path / "apart.jsonl", "--adapters", checkpoint)
    merged = scored(typed, pairs, tmp_path / "merged.jsonl", "--model", tmp_path / "merged")
    assert [one["response"] for one in merged] == pytest.approx([one["response"] for one in apart], abs=1e-4)


def test_training_of_a_reward_model_goes_on_with_its_head(trained, typed, pairs, tmp_path):
    first = newest(trained("first", rlhf_type="rm", dataset=pairs, tuner_type="full", **STEPS))
    second = trained("second", rlhf_type="rm", dataset=pairs, model=first, tuner_type="full", **STEPS)
    assert losses(second)[1] < 0.5 < losses(first.parent)[1]


@pytest.mark.parametrize("kind", ["rm", "kto"])
@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_layouts_give_the_same_losses(kind, tuner, trained, pairs, labelled):
    data = {**STEPS, "rlhf_type": kind, "dataset": pairs if kind == "rm" else labelled, "tuner_type": tuner}
    data |= {"lora_dropout": 0.0, "max_steps": 4, "gradient_accumulation_steps": 2}
    data |= {"center_rewards_coefficient": 0.01} if kind == "rm" else {}
    found = {
        name: logged(trained(name, **{**data, **more}))
        for name, more in {
            "padded": {},
            "flat": {"padding_free": True},
            "split": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        }.items()
    }
    for line, *others in zip(*found.values(), strict=True):
        for other in others:
            for name in {name for name in line if name.startswith(("loss", "rewards", "kl", "grad_norm", "logps"))}:
                assert other[name] == pytest.approx(line[name], rel=2e-3, abs=2e-4), name


@pytest.mark.parametrize("kind", ["rm", "kto"])
def test_a_resumed_run_is_the_uninterrupted_one(kind, trained, pairs, labelled):
    data = {"rlhf_type": kind, "dataset": pairs if kind == "rm" else labelled, **RESUMED}
    whole = trained("whole", **data)
    part = trained("part", resume_from_checkpoint=whole / "checkpoint-3", **data)
    last = [newest(folder) for folder in (whole, part)]
    assert last[0].name == last[1].name and last[0].name != "checkpoint-3"
    sums = [{n: s for n, s in digests(one).items() if n.endswith(".safetensors")} for one in last]
    assert sums[0] == sums[1]
    lines = [[line for line in logged(folder) if line.get("step", 0) > 3] for folder in (whole, part)]
    assert lines[0] == lines[1] and any("eval_loss" in line for line in lines[0])


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_kto_moves_the_margin(tuner, trained, labelled):
    folder = trained(rlhf_type="kto", dataset=labelled, val_dataset=labelled, tuner_type=tuner, **STEPS, eval_steps=5)
    evaluated = [line for line in logged(folder) if "eval_rewards/margins" in line]
    assert evaluated[-1]["eval_rewards/margins"] > evaluated[0]["eval_rewards/margins"] > 0
    assert evaluated[-1]["eval_kl"] >= 0
    first = next(line for line in logged(folder) if "loss" in line)
    assert first["loss"] == pytest.approx(0.5)  # the model is its reference: every value is 1/2
    assert first["kl"] == 0


def test_log_probabilities_of_the_reference_may_be_computed_in_advance(trained, labelled, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = {"rlhf_type": "kto", "dataset": labelled, "val_dataset": labelled, **STEPS, "max_steps": 3, "eval_steps": 3}
    now, before = trained("now", **data), trained("before", **data, precompute_ref_log_probs=True)
    for line, other in zip(logged(now), logged(before), strict=True):
        for name in {name for name in line if "loss" in name or "kl" in name}:
            assert other[name] == pytest.approx(line[name], rel=1e-4, abs=1e-5), name


def test_one_label_alone_trains_with_a_warning(trained, labelled, tmp_path):
    rows = [row for row in map(json.loads, labelled.open()) if row["label"]]
    data = write_rows(tmp_path / "good.jsonl", rows)
    folder = trained(rlhf_type="kto", dataset=data, **{**STEPS, "max_steps": 2})
    (said,) = [text for text in record(folder)["warnings"] if "have the label true" in text]
    assert "the model is only pushed towards these answers" in said
    assert not any("rewards/margins" in line for line in logged(folder))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rlhf_type": "rm", "num_labels": 2}, "--num_labels 2: a reward is one number"),
        ({"rlhf_type": "rm", "task_type": "causal_lm"}, "--task_type causal_lm: rm trains models of seq_cls"),
        ({"rlhf_type": "rm", "loss_type": ["sigmoid"]}, "rm has a loss of its own"),
        ({"rlhf_type": "kto", "loss_type": ["sigmoid"]}, "kto has a loss of its own"),
        ({"rlhf_type": "kto", "task_type": "seq_cls", "num_labels": 1}, "kto trains models of causal_lm"),
        ({"rlhf_type": "kto", "task_type": "seq_cls"}, "kto trains models of causal_lm. Leave the flag out."),
        ({"rlhf_type": "kto", "lazy_tokenize": True}, "--lazy_tokenize true encodes rows while training, and kto"),
        ({"rlhf_type": "kto"}, "There is one row to train on, and its prompt needs the answer of another row"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings, message, typed, tiny_model, labelled, tmp_path):
    row = json.loads(labelled.read_text().splitlines()[0])
    data = write_rows(tmp_path / "one.jsonl", [row | {"rejected_response": "No!"}])
    given: dict[str, Any] = {"model": tiny_model, "dataset": data, "output_dir": tmp_path / "output", **settings}
    words = [
        word
        for name, value in given.items()
        for word in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]
    done = typed("rlhf", *words)
    assert done.code != 0 and message in done.error


@pytest.mark.long
def test_two_processes_train_as_one(trained, pairs, labelled, tiny_model, tmp_path):
    exact = {**QUICK, "optim": "sgd", "lr_scheduler_type": "constant", "learning_rate": 0.1, "logging_steps": 1}
    exact |= {"model": tiny_model, "num_train_epochs": 2, "save_only_model": True, "lora_dropout": 0.0}
    jobs = {
        "rm": {"rlhf_type": "rm", "dataset": pairs, "val_dataset": pairs, "eval_strategy": "epoch"},
        "rm-flat": {"rlhf_type": "rm", "dataset": pairs, "padding_free": True, "tuner_type": "full"},
        "kto": {"rlhf_type": "kto", "dataset": labelled, "val_dataset": labelled, "eval_strategy": "epoch"},
        "kto-flat": {"rlhf_type": "kto", "dataset": labelled, "padding_free": True, "tuner_type": "full"},
    }
    lines = []
    for name, job in jobs.items():
        alone = {**exact, **job, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        trained(f"{name}-one", command="rlhf", **alone)
        both = {**alone, "gradient_accumulation_steps": 1, "output_dir": tmp_path / f"{name}-two"}  # 4 rows are left
        lines.append(["rlhf", *words_of(both)])
    run_together(tmp_path, lines)
    for name in jobs:
        same_logs(tmp_path / f"{name}-one", tmp_path / f"{name}-two")
        same_weights(tmp_path / f"{name}-one", tmp_path / f"{name}-two")
