"""One step of ``martlet sft`` against one step of TRL's SFTTrainer on the same rows: loss, gradient norm, weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import martlet

pytest.importorskip("trl")

TALK = [
    ("Who are you?", "A small bird."),
    ("Where do you live?", "On a cliff above the sea, with many others."),
    ("Why?", "It is high."),
    ("Say what you eat, and when.", "Fish. In the morning, and again before it is dark and we sleep."),
    ("Can you land?", "Hardly ever; a martlet has no feet, they say."),
    ("Is that so?", "No."),
]
STEP = {"learning_rate": 0.5, "max_steps": 1, "weight_decay": 0.0, "max_grad_norm": 0.0, "optim": "sgd"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "talk.jsonl"
    talks = ([{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in TALK)
    file.write_text("\n".join(json.dumps({"messages": talk}) for talk in talks))
    return file


def settings(model: Path, rows: Path, folder: Path) -> dict:
    return {
        "model": str(model),
        "dataset": [str(rows)],
        "dataset_shuffle": False,
        "train_dataloader_shuffle": False,
        "tuner_type": "full",
        "lr_scheduler_type": "constant",
        "output_dir": str(folder),
        "report_to": ["none"],
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "save_only_model": True,
        "use_cpu": True,
        **STEP,
    }


def of_trl(model: Path, rows: Path, folder: Path, loss_type: str):
    """Train one step with TRL on the rows that Martlet encodes."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from martlet_data.api import prepare

    run = martlet.prepare("sft", **settings(model, rows, folder))
    processor = run.one("models").load_processor(run)
    encoded = prepare(run, run.one("templates").bind(processor, run)).train
    data = Dataset.from_list([{"input_ids": row.input_ids.tolist(), "labels": row.labels.tolist()} for row in encoded])
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=3,
            gradient_accumulation_steps=2,
            train_sampling_strategy="sequential",
            lr_scheduler_type="constant",
            loss_type=loss_type,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            bf16=False,
            use_cpu=True,
            activation_checkpointing=False,
            **STEP,
        ),
        train_dataset=data,
        processing_class=processor,
    )
    trainer.train()
    return trainer.state.log_history[0], trainer.model.state_dict()


@pytest.mark.parametrize(("ours", "theirs"), [("cross_entropy", "nll"), ("dft", "dft")])
@pytest.mark.parametrize("layout", [{}, {"padding_free": True}])
def test_one_step_is_trls(tiny_model, rows, tmp_path, ours, theirs, layout):
    logs, weights = of_trl(tiny_model, rows, tmp_path, theirs)
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    result = martlet.run("sft", **settings(tiny_model, rows, tmp_path), **split, **layout, loss_type=ours)
    assert result.metrics["loss"] == pytest.approx(logs["loss"], rel=1e-5)
    assert result.metrics["grad_norm"] == pytest.approx(logs["grad_norm"], rel=1e-4)
    for name, tensor in load_file(result.checkpoint / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=1e-6, msg=name)
