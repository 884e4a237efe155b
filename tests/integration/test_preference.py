"""``martlet rlhf`` with losses of pairs, on a tiny model: it learns what is preferred, however it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_jobs import DESCENT, QUICK, SENTENCE, digests, logged, losses, words_of, write_rows

import martlet

ALGORITHMS = ["dpo", "orpo", "cpo", "simpo"]
ONE_STEP: dict[str, Any] = {**DESCENT, "logging_steps": 1}
SPLITS: dict[str, dict[str, Any]] = {
    "2x2": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "padding_free 3+1": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "padding_free": True},
    "packed into several": {"gradient_accumulation_steps": 4, "packing": True, "packing_length": 240},
    "left, two data workers": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 4,
        "padding_side": "left",
        "dataloader_num_workers": 2,
    },
}


def pair(number: int) -> dict[str, Any]:
    """Return a row that prefers words in order; every third has two rounds."""
    words = SENTENCE.split()
    start, length = number * 3 % len(words), 2 + number % 5
    chosen = [words[(start + at) % len(words)] for at in range(length)]
    rejected = [words[(start + 5 * at + 7) % len(words)] for at in range(2 + number * 2 % 7)]
    turns = [("user", f"Begin with {chosen[0]}."), ("assistant", " ".join(chosen))]
    if number % 3 == 0:
        turns = [("user", "Say words."), ("assistant", "I shall."), *turns]
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": messages, "rejected_response": " ".join(rejected)}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", [pair(number) for number in range(17)])


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("four") / "four.jsonl", [pair(number) for number in (3, 5, 9, 11)])


@pytest.fixture
def aligned(typed, tiny_model, pairs, tmp_path):
    """Return a function that runs ``martlet rlhf`` and returns the output folder."""

    def run(name: str = "output", **settings: Any) -> Path:
        base = {"model": tiny_model, "dataset": pairs, "output_dir": tmp_path / name, **QUICK}
        done = typed("rlhf", *words_of({**base, **settings}))
        assert done.code == 0, done.err
        return tmp_path / name

    return run


def numbers(line: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in line.items() if isinstance(value, float)}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "last").glob("*model.safetensors")))


@pytest.mark.parametrize("tuner", ["lora", "full"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_widens_the_margin(algorithm, tuner, aligned):
    settings = {"max_steps": 8, "logging_steps": 1, "per_device_train_batch_size": 17, "save_only_model": True}
    rate = {"lora": 1e-2, "full": 1e-3}[tuner]
    folder = aligned(rlhf_type=algorithm, tuner_type=tuner, learning_rate=rate, lora_dropout=0.0, **settings)
    margins, right = losses(folder, "rewards/margins"), losses(folder, "rewards/accuracies")
    assert list(margins) == list(range(1, 9))
    assert margins[8] > margins[4] > margins[1] and right[8] > right[1]
    assert losses(folder)[8] < losses(folder)[1]
    lines = logged(folder)
    expected = {"rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"}
    assert expected <= lines[0].keys()
    assert ("nll_loss" in lines[0]) == (algorithm != "dpo")
    assert ("log_odds_ratio" in lines[0]) == (algorithm == "orpo")


JOBS: dict[str, dict[str, Any]] = {
    "dpo, lora": {"rlhf_type": "dpo", "lora_dropout": 0.0},
    "dpo, full, mixed": {
        "rlhf_type": "dpo",
        "tuner_type": "full",
        "loss_type": ["sigmoid", "bco_pair", "sft"],
        "loss_weights": [0.8, 0.2, 0.5],
        "ld_alpha": 0.5,
    },
    "orpo, full": {"rlhf_type": "orpo", "tuner_type": "full"},
    "simpo, lora": {"rlhf_type": "simpo", "lora_dropout": 0.0},
}
LONG = ("simpo, lora",)


@pytest.mark.parametrize("job", [pytest.param(j, marks=pytest.mark.long) if j in LONG else j for j in JOBS])
def test_a_step_does_not_depend_on_its_split(job, aligned, four):
    settings = {**ONE_STEP, **JOBS[job], "dataset": four}
    whole = aligned("whole", per_device_train_batch_size=4, **settings)
    wanted, line = weights(whole), logged(whole)[0]
    for name, split in SPLITS.items():
        found = aligned(name.replace(" ", "-"), **{**settings, **split})
        for key, value in numbers(logged(found)[0]).items():
            assert value == pytest.approx(line[key], rel=1e-4, abs=1e-5), f"{name}: {key}"
        for key, tensor in weights(found).items():
            torch.testing.assert_close(tensor, wanted[key], rtol=1e-4, atol=2e-6, msg=f"{name}: {key}")


RESUMED: dict[str, dict[str, Any]] = {
    "dpo, lora, packed": {
        "rlhf_type": "dpo",
        "packing": True,
        "packing_length": 300,
        "dataloader_num_workers": 2,
        "lora_dropout": 0.2,
        "num_train_epochs": 3,
        "gradient_accumulation_steps": 2,
    },
    "cpo, full, in the middle of an epoch": {
        "rlhf_type": "cpo",
        "tuner_type": "full",
        "per_device_train_batch_size": 2,
        "max_steps": 6,
    },
}


@pytest.mark.parametrize("way", RESUMED)
def test_resumed_is_uninterrupted(way, aligned):
    settings = {**RESUMED[way], "save_steps": 2, "logging_steps": 1, "split_dataset_ratio": 0.2, "eval_steps": 2}
    whole = aligned("whole", **settings)
    saved = sorted(int(path.name.partition("-")[2]) for path in whole.glob("checkpoint-*"))
    assert len(saved) >= 2
    torch.manual_seed(9)  # what a new process would start from
    resumed = aligned("resumed", **settings, resume_from_checkpoint=whole / f"checkpoint-{saved[0]}")
    last = f"checkpoint-{saved[-1]}"
    tensors = [{n: d for n, d in digests(f / last).items() if n.endswith("safetensors")} for f in (whole, resumed)]
    assert tensors[0] == tensors[1]
    later = [line for line in logged(whole) if line["step"] > saved[0] and "train_loss" not in line]
    assert later and later == [line for line in logged(resumed) if "train_loss" not in line]
    assert any("eval_rewards/margins" in line for line in later)


def test_the_best_checkpoint_is_chosen_by_a_reward(aligned):
    folder = aligned(
        max_steps=4,
        save_steps=2,
        split_dataset_ratio=0.3,
        metric_for_best_model="rewards/accuracies",
        save_total_limit=2,
    )
    state = json.loads((folder / "checkpoint-4" / "trainer_state.json").read_text())
    found = {line["step"]: line["eval_rewards/accuracies"] for line in logged(folder) if "eval_loss" in line}
    assert state["best_metric"] == max(found.values())


def test_the_evaluation_does_not_depend_on_its_batches(tiny_model, four, tmp_path):
    place = {"model": str(tiny_model), "dataset": [str(four)], "val_dataset": [str(four)], "eval_on_start": True}
    place |= {"rlhf_type": "orpo", "save_strategy": "no"}
    ways = ({"per_device_eval_batch_size": 4}, {"per_device_eval_batch_size": 3}, {"padding_free": True})
    found = [
        martlet.run("rlhf", **QUICK | ONE_STEP | place | way, output_dir=str(tmp_path / str(at)))
        for at, way in enumerate(ways)
    ]
    for name in ("eval_loss", "eval_rewards/margins", "eval_log_odds_chosen", "eval_nll_loss"):
        assert [result.metrics[name] for result in found] == pytest.approx([found[0].metrics[name]] * 3, rel=1e-4)


def test_experts_are_balanced_beside_the_preference(tmp_path, four):
    from martlet_sdk.tiny import save_tiny_model

    model = save_tiny_model(tmp_path / "model", architecture="qwen3_moe")
    place = {"model": str(model), "dataset": [str(four)], "per_device_train_batch_size": 4, "rlhf_type": "cpo"}
    settings = QUICK | ONE_STEP | place
    runs = [
        martlet.run("rlhf", **settings, router_aux_loss_coef=weight, output_dir=str(tmp_path / str(weight)))
        for weight in (0.0, 0.5)
    ]
    assert runs[1].metrics["loss"] > runs[0].metrics["loss"] + 0.1
