"""``martlet plan`` says what a run would do, without loading weights."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from martlet import UsageError
from martlet_train.plan import plan


def size(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_steps_parameters_and_files_are_those_of_the_run(prepare, train, tmp_path):
    settings = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    settings |= {"num_train_epochs": 2, "save_steps": 3}
    facts = plan(prepare(**settings))
    assert not (tmp_path / "out").exists()
    assert facts["rows"] == {"train": 21, "eval": 0}
    assert facts["rows_per_step"] == 6
    result = train(**settings)
    assert facts["steps"] == result.metrics["step"] == 8
    assert facts["parameters"]["trained"] == facts["parameters"]["total"] > 0
    planned = {path.rsplit("v0-DATE-TIME/", 1)[1].rstrip("/") for path in facts["files"]}
    written = {path.name for path in result.folder.iterdir()}
    assert planned - {"images"} <= written  # the pictures are not drawn in these tests
    assert {"checkpoint-3", "checkpoint-6", "checkpoint-8"} <= planned


def test_what_is_not_known_says_why(prepare):
    facts = plan(prepare(packing=True, packing_length=64))
    assert "lengths" in facts["steps"]["unknown"]
    assert "rows of a batch" in facts["memory_of_activations"]["unknown"]
    facts = plan(prepare(dataset=["someone/far-away"]))
    assert "nothing is downloaded" in facts["rows"]["unknown"]


def test_a_flag_that_the_run_would_refuse_is_refused(prepare):
    with pytest.raises(UsageError, match=r"Did you mean .*adamw_torch_fused"):
        plan(prepare(optim="adamw_torch_fuse"))


OPTIMIZERS = [
    {"optim": "adamw_torch_fused"},
    {"optim": "adamw_torch", "torch_dtype": "bfloat16"},
    {"optim": "sgd"},
    {"optim": "sgd", "optim_args": "momentum=0.9"},
    {"optim": "adafactor"},
    {"optim": "adagrad"},
    {"optim": "rmsprop", "optim_args": "momentum=0.5,centered=true", "fast_head": 4.0},
]


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_memory_is_what_the_run_holds_to_the_byte(prepare, train, monkeypatch, settings):
    planned = plan(prepare(**settings))["memory"]
    held = {}

    def save(self, trainer):
        tensors = [*trainer.model.parameters(), *trainer.model.buffers()]
        states = trainer.optimizer.state_dict()["state"].values()
        held["weights"] = size(tensors)
        held["gradients"] = held_by_gradients["bytes"]
        held["optimizer"] = size(value for state in states for value in state.values() if torch.is_tensor(value))

    held_by_gradients = {}
    monkeypatch.setattr("martlet_train.saving.Checkpoints.save", save)
    clip = Accelerator.clip_grad_norm_

    def measured(self, parameters, *args, **kwargs):
        parameters = list(parameters)
        held_by_gradients["bytes"] = size(p.grad for p in parameters if p.grad is not None)
        return clip(self, parameters, *args, **kwargs)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", measured)
    train(max_steps=1, **settings)
    assert planned == held | {"unit": "bytes on each device"}


def test_an_optimizer_that_needs_values_is_unknown(prepare, monkeypatch):
    def step(self, closure=None):
        return self.param_groups[0]["params"][0].detach().sum().item()

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    why = plan(prepare(optim="sgd"))["memory"]["optimizer"]["unknown"]
    assert "SGD cannot step without values" in why


@pytest.mark.parametrize("settings", [{"max_steps": 3}, {"max_epochs": 1, "num_train_epochs": 5}])
def test_a_shorter_run_is_planned_as_one(prepare, train, settings):
    assert plan(prepare(**settings))["steps"] == train(**settings, save_strategy="no").metrics["step"]
