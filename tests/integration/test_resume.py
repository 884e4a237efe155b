"""Stopped and resumed is uninterrupted, to the bit, typed as a person would type it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_jobs import conversation, digests, losses, write_rows

from martlet_sdk.tiny import save_tiny_model

PACKED: dict[str, Any] = {
    "packing": True,
    "packing_length": 128,
    "dataloader_num_workers": 2,
    "lora_dropout": 0.2,
    "neftune_noise_alpha": 5,
    "split_dataset_ratio": 0.2,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 3,
    "save_steps": 3,
    "logging_steps": 2,
}
FULL: dict[str, Any] = {
    "tuner_type": "full",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 8,
    "save_steps": 2,
    "logging_steps": 3,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.3,
    "gradient_checkpointing": True,
}
WAYS: dict[str, dict[str, Any]] = {
    "lora, packed, two data workers, evaluated": PACKED,
    "full, padded, in the middle of an epoch": FULL,
    "full, padding_free, grouped, best kept": {
        **FULL,
        "padding_free": True,
        "group_by_length": True,
        "logging_steps": 1,
        "split_dataset_ratio": 0.2,
        "save_total_limit": 2,
    },
    "lora, bf16, epochs": {
        "save_strategy": "epoch",
        "num_train_epochs": 3,
        "bf16": True,
        "lora_dropout": 0.1,
        "lorap_lr_ratio": 16,
        "per_device_train_batch_size": 5,
        "dataloader_drop_last": True,
        "dataloader_num_workers": 1,
    },
    "pt, completion": {"command": "pt", "tuner_type": "full", "max_steps": 6, "save_steps": 3, "optim": "adafactor"},
}
QUICK_WAYS = list(WAYS)[:2]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("many") / "many.jsonl", [conversation(number) for number in range(29)])


@pytest.fixture(scope="module")
def dropout(tmp_path_factory) -> Path:
    """Return a model whose every training step draws random numbers."""
    folder = tmp_path_factory.mktemp("dropout") / "model"
    return save_tiny_model(folder, architecture="gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3)


def state(checkpoint: Path) -> dict[str, Any]:
    """Return sums of everything that training goes on from, and the log without clocks."""
    found: dict[str, Any] = {name: one for name, one in digests(checkpoint).items() if name.endswith(".safetensors")}
    trainer = json.loads((checkpoint / "trainer_state.json").read_text())
    lines = trainer["log_history"]
    found["log"] = [{k: v for k, v in line.items() if not k.endswith(("runtime", "per_second"))} for line in lines]
    return found | {name: trainer[name] for name in ("global_step", "epoch", "best_metric", "best_global_step")}


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize("way", [w if w in QUICK_WAYS else pytest.param(w, marks=pytest.mark.long) for w in WAYS])
def test_resumed_is_uninterrupted(way, trained, dropout, many):
    settings = {"model": dropout, "dataset": many, "target_modules": ["c_attn", "c_fc"], **WAYS[way]}
    if settings.get("tuner_type") == "full":
        del settings["target_modules"]
    whole = trained("whole", **settings)
    saved = steps(whole)
    middle = whole / f"checkpoint-{saved[0]}"
    assert len(saved) >= 2
    torch.manual_seed(9)  # what a new process would start from
    resumed = trained("resumed", **settings, resume_from_checkpoint=middle)
    last = f"checkpoint-{saved[-1]}"
    assert state(resumed / last) == state(whole / last)
    assert steps(resumed) == saved[1:]
    both = {step: loss for step, loss in losses(whole).items() if step > saved[0]}
    assert both and losses(resumed) == both
    if "split_dataset_ratio" in settings:
        later = {step: loss for step, loss in losses(whole, "eval_loss").items() if step > saved[0]}
        assert later and losses(resumed, "eval_loss") == later


def test_resuming_in_the_same_folder_leaves_one_seamless_log(trained, many):
    settings = {"dataset": many, "max_steps": 4, "save_steps": 2, "logging_steps": 1, "lora_dropout": 0.3}
    whole = trained("whole", **settings)
    again = trained("again", **settings)
    assert losses(again) == losses(whole)
    trained("again", **settings, resume_from_checkpoint=again / "checkpoint-2")
    assert losses(again) == losses(whole) and list(losses(again)) == [1, 2, 3, 4]
    assert state(again / "checkpoint-4") == state(whole / "checkpoint-4")


def test_settings_that_lose_the_place_are_refused_in_one_sentence(trained, typed, many, tiny_model, tmp_path):
    settings = {"dataset": many, "max_steps": 2, "save_steps": 1}
    whole = trained("whole", **settings)
    words = ["sft", "--model", tiny_model, "--dataset", f"{many}#20", "--max_steps", 2, "--output_dir", tmp_path / "b"]
    done = typed(*words, "--resume_from_checkpoint", whole / "checkpoint-1", "--use_cpu", "true")
    assert done.code == 1
    assert "the training rows (--dataset" in done.error and "--ignore_data_skip true" in done.error
    assert not list((tmp_path / "b").glob("checkpoint-*"))
