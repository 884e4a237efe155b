"""One optimizer step on the same rows: however they are split, the same loss and the same weights (PROMISES 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_jobs import DESCENT, QUICK, conversation, record, write_rows

import martlet
from martlet_sdk.tiny import save_tiny_model

STRANGER = str(Path(__file__).parent / "strangers" / "rare_words.py")
ONE_STEP: dict[str, Any] = {**QUICK, **DESCENT}


def split(rows: int, batches: int, **more: Any) -> dict[str, Any]:
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batches, **more}


SPLITS = {
    "4x1": split(4, 1),
    "2x2": split(2, 2),
    "1x4": split(1, 4),
    "3+1": split(3, 2),
    "packed into one": split(1, 1, packing=True, packing_length=512),
    "packed into several": split(1, 4, packing=True, packing_length=110),
    "padding_free 4x1": split(4, 1, padding_free=True),
    "padding_free 2x2, eager": split(2, 2, padding_free=True, attn_impl="eager"),
    "two data workers": split(2, 2, dataloader_num_workers=2),
    "checkpointed": split(1, 4, gradient_checkpointing=True),
}
JOBS: dict[str, dict[str, Any]] = {
    "full": {"tuner_type": "full"},
    "lora": {"lora_dropout": 0.0},
    "full, fractional weights of a stranger": {
        "tuner_type": "full",
        "loss_scale": "last_round+rare_words",
        "external_plugins": [STRANGER],
    },
    "full, dft": {"tuner_type": "full", "loss_type": "dft"},
}
LONG = ("full, dft",)


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> Path:
    """Return four rows of very different lengths."""
    rows = [conversation(number) for number in (1, 3, 8, 12)]
    return write_rows(tmp_path_factory.mktemp("four") / "four.jsonl", rows)


@pytest.mark.parametrize("job", [pytest.param(j, marks=pytest.mark.long) if j in LONG else j for j in JOBS])
def test_a_step_does_not_depend_on_its_split(job, four, tiny_model, tmp_path):
    def step(name: str) -> Any:
        place = {"model": str(tiny_model), "dataset": [str(four)], "output_dir": str(tmp_path / name)}
        return martlet.run("sft", **{**ONE_STEP, **place, **JOBS[job], **SPLITS[name]})

    expected = step("4x1")
    weights = trained(expected.checkpoint)
    assert any(bool(tensor.abs().max() > 0) for tensor in weights.values())
    for name in list(SPLITS)[1:]:
        found = step(name)
        assert found.metrics["loss"] == pytest.approx(expected.metrics["loss"], rel=1e-6), name
        assert found.metrics["grad_norm"] == pytest.approx(expected.metrics["grad_norm"], rel=1e-5), name
        for key, tensor in trained(found.checkpoint).items():
            torch.testing.assert_close(tensor, weights[key], rtol=1e-4, atol=2e-6, msg=f"{name}: {key}")
    assert record(tmp_path / "packed into one")["notes"]["packing"]["packs"] == 1
    assert record(tmp_path / "packed into several")["notes"]["packing"]["packs"] > 1


def trained(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(next(checkpoint.glob("*model.safetensors")))


def test_weights_of_a_stranger_change_the_step_as_they_say(four, tiny_model, tmp_path):
    """Twice the weight of every token is twice the loss and twice the gradient: the divisor counts tokens."""
    double = tmp_path / "double.py"
    source = (
        "from martlet import LossScale, hookimpl\n\ndef double(messages, spans):\n    return [2.0] * len(spans)\n\n"
    )
    double.write_text(source + "@hookimpl\ndef provide_loss_scales():\n    yield LossScale('double', double)\n")
    place = {"model": str(tiny_model), "dataset": [str(four)], "external_plugins": [str(double)], "tuner_type": "full"}
    plain, twice = (
        martlet.run("sft", **{**ONE_STEP, **place, **split(2, 2)}, loss_scale=scale, output_dir=str(tmp_path / scale))
        for scale in ("default", "default+double")
    )
    assert twice.metrics["loss"] == pytest.approx(2 * plain.metrics["loss"], rel=1e-6)
    assert twice.metrics["grad_norm"] == pytest.approx(2 * plain.metrics["grad_norm"], rel=1e-5)


def test_the_evaluation_loss_does_not_depend_on_its_batches(four, tiny_model, tmp_path):
    place = {"model": str(tiny_model), "dataset": [str(four)], "val_dataset": [str(four)], "eval_on_start": True}
    found = [
        martlet.run("sft", **ONE_STEP, **place, **way, output_dir=str(tmp_path / str(number)), save_strategy="no")
        for number, way in enumerate(
            ({"per_device_eval_batch_size": 4}, {"per_device_eval_batch_size": 3}, {"padding_free": True})
        )
    ]
    assert len({round(result.metrics["eval_loss"], 5) for result in found}) == 1


@pytest.mark.long
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "mistral", "qwen3_moe"])
def test_rows_in_one_sequence_do_not_see_each_other(architecture, four, tmp_path):
    model = save_tiny_model(tmp_path / "model", architecture=architecture)
    place = {"model": str(model), "dataset": [str(four)], "tuner_type": "full"}
    padded, packed = (
        martlet.run("sft", **{**ONE_STEP, **place, **SPLITS[way]}, output_dir=str(tmp_path / way))
        for way in ("4x1", "packed into one")
    )
    assert packed.metrics["loss"] == pytest.approx(padded.metrics["loss"], rel=1e-6)
    weights = trained(padded.checkpoint)
    for key, tensor in trained(packed.checkpoint).items():
        torch.testing.assert_close(tensor, weights[key], rtol=1e-4, atol=5e-6, msg=key)
