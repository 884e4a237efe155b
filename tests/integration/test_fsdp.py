"""FSDP2 through accelerate: the run of one process, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_jobs import QUICK, conversation, digests, words_of, write_rows
from together import run_together, same_logs, same_weights

from martlet.cli import main
from martlet_sdk.tiny import save_tiny_model

BASE: dict[str, Any] = {
    **QUICK,
    "gradient_accumulation_steps": 2,
    "logging_steps": 1,
    "max_steps": 4,
    "save_steps": 2,
    "optim": "sgd",
    "learning_rate": 0.3,
    "max_grad_norm": 0.5,
    "lora_dropout": 0.0,
    "eval_strategy": "steps",
}
WAYS = {
    "full": {**BASE, "tuner_type": "full"},
    "lora, packed": {**BASE, "tuner_type": "lora", "packing": True, "packing_length": 128},
    "adam": {**BASE, "tuner_type": "full", "optim": "adamw_torch_fused", "learning_rate": 1e-3},
}


def run_and_compare(tmp_path: Path, ranks: str, **more: Any) -> None:
    """Run each way on one process, on two, and on two again from the middle; compare."""
    save_tiny_model(tmp_path / "model", hidden=60)
    rows = write_rows(tmp_path / "rows.jsonl", [conversation(number) for number in range(13)])
    base = {"model": tmp_path / "model", "dataset": rows, "val_dataset": rows}

    def line(folder: str, **settings: Any) -> list[str]:
        return ["sft", *words_of({**base, "output_dir": tmp_path / folder, **settings, **more})]

    lines = []
    for name, settings in WAYS.items():
        divided = {**settings, "fsdp": "fsdp2", "per_device_train_batch_size": 1}
        lines.append(line(f"two-{name}", **divided))
        last = tmp_path / f"two-{name}" / "checkpoint-2"
        lines.append(line(f"on-{name}", **divided, resume_from_checkpoint=last))
    run_together(tmp_path, lines, ranks=ranks)
    for name, settings in WAYS.items():
        assert main(line(f"one-{name}", **settings, per_device_train_batch_size=2)) == 0
        if name != "adam":  # which makes much of the rounding of gradients near zero
            same_logs(tmp_path / f"one-{name}", tmp_path / f"two-{name}")
            same_weights(tmp_path / f"one-{name}", tmp_path / f"two-{name}")
        through, resumed = (digests(tmp_path / f"{kind}-{name}" / "checkpoint-4") for kind in ("two", "on"))
        state = [file for file in through if file.endswith("model.safetensors") or file == "optimizer.safetensors"]
        assert len(state) == 2 and {file: through[file] for file in state} == {file: resumed[file] for file in state}


def test_a_divided_run_is_that_of_one_process(tmp_path):
    run_and_compare(tmp_path, "divides_on_cpus.py")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_divided_run_on_gpus_is_that_of_one_process(tmp_path):
    run_and_compare(tmp_path, "ranks.py", use_cpu=False)
