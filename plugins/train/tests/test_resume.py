"""Interrupted and resumed is uninterrupted, to the bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from martlet import CheckpointError, UsageError
from martlet_sdk.tiny import save_tiny_model
from martlet_train.state import load_state

SAME = ("model.safetensors", "optimizer.safetensors", "scheduler.safetensors", "random_state.safetensors")


@pytest.fixture(scope="module")
def dropout(tmp_path_factory):
    """A model whose every step draws random numbers."""
    folder = tmp_path_factory.mktemp("dropout") / "model"
    return save_tiny_model(folder, architecture="gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3)


def digest(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SAME}


def history(folder):
    """Return what was logged, times and speeds aside."""
    lines = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    clocks = ("runtime", "per_second")
    return [{key: value for key, value in line.items() if not key.endswith(clocks)} for line in lines]


WAYS = {
    "middle of an epoch": {"save_steps": 2, "max_steps": 5, "per_device_train_batch_size": 2},
    "end of an epoch": {"save_steps": 3, "num_train_epochs": 2, "gradient_accumulation_steps": 7},
    "packing": {"packing": True, "packing_length": 48, "gradient_accumulation_steps": 2, "save_steps": 3},
    "padding_free": {"padding_free": True, "per_device_train_batch_size": 3, "save_steps": 2, "max_steps": 5},
    "grouped": {"group_by_length": True, "save_steps": 2, "max_steps": 4, "per_device_train_batch_size": 4},
    "workers": {"dataloader_num_workers": 2, "save_steps": 1, "max_steps": 3, "per_device_train_batch_size": 2},
    "neftune": {"neftune_noise_alpha": 5, "save_steps": 1, "max_steps": 3, "gradient_checkpointing": True},
    "epochs": {"save_strategy": "epoch", "num_train_epochs": 2, "logging_steps": 3, "eval_strategy": "epoch"},
    "evaluated at the start": {"save_steps": 1, "max_steps": 2, "eval_strategy": "steps", "eval_on_start": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_resumed_is_uninterrupted_to_the_bit(train, dropout, rows, way):
    settings = {"model": str(dropout), "logging_steps": 2, **WAYS[way]}
    if "eval_strategy" in settings:
        settings["val_dataset"] = [str(rows)]
    whole = train(**settings)
    middle = sorted(whole.folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))[0]
    torch.manual_seed(1234)  # what a new process would start from
    resumed = train(**settings, resume_from_checkpoint=str(middle))
    assert resumed.checkpoint.name == whole.checkpoint.name != middle.name
    assert digest(resumed.checkpoint) == digest(whole.checkpoint)
    assert history(resumed.checkpoint) == history(whole.checkpoint)
    assert resumed.metrics["train_loss"] == whole.metrics["train_loss"]


def test_the_link_to_the_last_checkpoint_can_be_resumed_from(train):
    settings = {"save_steps": 1, "save_total_limit": 1, "lr_scheduler_type": "constant", "logging_steps": 1}
    whole = train(**settings, max_steps=3)
    short = train(**settings, max_steps=2)
    resumed = train(**settings, max_steps=3, resume_from_checkpoint=str(short.folder / "last"))
    assert digest(resumed.checkpoint) == digest(whole.checkpoint)


def test_other_splits_of_a_step_continue_on_the_right_rows(train):
    settings = {"save_steps": 2, "max_steps": 4}
    whole = train(**settings, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    resumed = train(
        **settings,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        resume_from_checkpoint=str(whole.folder / "checkpoint-2"),
    )
    weights, expected = (load_file(one.checkpoint / "model.safetensors") for one in (resumed, whole))
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)


@pytest.fixture
def checkpoint(train):
    return train(max_steps=2, save_steps=1).folder / "checkpoint-1"


def test_a_missing_or_altered_file_is_refused_by_name(train, checkpoint):
    (checkpoint / "random_state.safetensors").unlink()
    weights = checkpoint / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"random_state\.safetensors") as caught:
        train(max_steps=2, resume_from_checkpoint=str(checkpoint))
    assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data_seed": 7}, "the training rows|the order of the rows"),
        ({"gradient_accumulation_steps": 3}, "the rows in a step"),
        ({"train_dataloader_shuffle": False}, "the order of the rows"),
    ],
)
def test_settings_that_lose_the_place_in_the_data_are_refused(train, checkpoint, changed, words):
    with pytest.raises(CheckpointError, match=words):
        train(max_steps=2, resume_from_checkpoint=str(checkpoint), **changed)


def test_flags_of_the_tuner_that_the_checkpoint_contradicts_are_refused(train, checkpoint):
    with pytest.raises(UsageError, match=r"--fast_head 3.0: .* was made with None"):
        train(max_steps=2, resume_from_checkpoint=str(checkpoint), fast_head=3.0)


def test_another_optimizer_is_refused_before_the_model_is_read(train, checkpoint, tmp_path):
    with pytest.raises(UsageError, match=r"--optim sgd: .* made with adamw_torch_fused.*--resume_only_model true"):
        train(max_steps=2, optim="sgd", resume_from_checkpoint=str(checkpoint))
    settings = {"max_steps": 2, "resume_from_checkpoint": str(checkpoint)}
    assert train(optim="sgd", resume_only_model=True, **settings).checkpoint.name == "checkpoint-2"
    assert train(optim="adamw_torch", **settings).checkpoint.name == "checkpoint-2"


def test_the_loop_of_another_version_is_refused(train, checkpoint, monkeypatch):
    monkeypatch.setattr("martlet_train.resuming.load_state", _without_since)
    with pytest.raises(CheckpointError, match=r"random_state\.safetensors was made by another version"):
        train(max_steps=2, resume_from_checkpoint=str(checkpoint))


def _without_since(path):
    state = load_state(path)
    state.get("loop", {}).pop("since", None)
    return state


def test_another_model_below_the_weights_is_told(train, checkpoint, tiny_model, tmp_path, caplog):
    shutil.copytree(tiny_model, tmp_path / "twin")
    train(max_steps=2, model=str(tmp_path / "twin"), resume_from_checkpoint=str(checkpoint))
    assert f"model ({tiny_model} then, {tmp_path / 'twin'} now)" in caplog.text


def test_the_same_model_by_a_relative_path_is_no_change(train, checkpoint, tiny_model, monkeypatch, caplog):
    monkeypatch.chdir(tiny_model.parent)
    train(max_steps=2, model=tiny_model.name, resume_from_checkpoint=str(checkpoint))
    assert "other settings: model" not in caplog.text


def test_a_checkpoint_without_optimizer_needs_resume_only_model(train):
    first = train(max_steps=1, save_only_model=True)
    with pytest.raises(CheckpointError, match="--resume_only_model true"):
        train(max_steps=2, resume_from_checkpoint=str(first.checkpoint))
    second = train(max_steps=2, resume_from_checkpoint=str(first.checkpoint), resume_only_model=True)
    assert second.checkpoint.name == "checkpoint-2"


def test_resume_only_model_keeps_weights_and_position_and_forgets_the_rest(train, checkpoint):
    settings = {"max_steps": 2, "save_steps": 1, "resume_from_checkpoint": str(checkpoint), "resume_only_model": True}
    continued = train(**settings)
    state = load_state(continued.checkpoint / "optimizer.safetensors")["optimizer"]["state"]
    assert float(state[0]["step"]) == 1  # a new optimizer, at the second step
    assert [line["step"] for line in history(continued.checkpoint) if "loss" in line] == [1, 2]
    anew = train(**settings, ignore_data_skip=True)
    assert sorted(path.name for path in anew.folder.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_nothing_is_trained_when_the_checkpoint_is_at_the_end(train, checkpoint, caplog):
    last = checkpoint.parent / "checkpoint-2"
    result = train(max_steps=2, resume_from_checkpoint=str(last))
    assert result.checkpoint == last.resolve()
    assert not list(result.folder.glob("checkpoint-*"))
    assert "nothing left to train" in caplog.text


def test_a_resumed_run_saves_as_its_own_flags_say(train, checkpoint):
    resumed = train(max_steps=5, save_steps=2, resume_from_checkpoint=str(checkpoint))
    saved = sorted(path.name for path in resumed.folder.glob("checkpoint-*"))
    assert saved == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]


def test_changed_settings_are_told(train, checkpoint, caplog):
    train(max_steps=3, learning_rate=1e-4, resume_from_checkpoint=str(checkpoint), save_strategy="no")
    assert "max_steps (2 then, 3 now), learning_rate (0.001 then, 0.0001 now)" in caplog.text


LOSS = """
from dataclasses import dataclass
from martlet import Loss, hookimpl


@dataclass
class Options:
    scale: float = 1.0


class Scaled:
    def __init__(self, options):
        self.options = options

    def __call__(self, logits, labels):
        return self.options.scale * -logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]


@hookimpl
def provide_losses():
    yield Loss("scaled", Scaled, options=Options)
"""


def test_changed_options_of_a_component_are_told(train, tmp_path, caplog):
    plugin, standins = tmp_path / "scaled.py", Path(__file__).parent / "standins.py"
    plugin.write_text(LOSS)
    settings = {"loss_type": "scaled", "external_plugins": [str(standins), str(plugin)], "save_steps": 1}
    first = train(**settings, max_steps=1, set=["loss.scaled.scale=2"]).checkpoint
    train(**settings, max_steps=1, set=["loss.scaled.scale=2"], resume_from_checkpoint=str(first))
    assert "other settings" not in caplog.text
    train(**settings, max_steps=2, set=["loss.scaled.scale=5"], resume_from_checkpoint=str(first))
    assert "max_steps (1 then, 2 now), --set loss.scaled.scale (2 then, 5 now)" in caplog.text
    caplog.clear()
    train(**settings, max_steps=1, resume_from_checkpoint=str(first))
    assert "--set loss.scaled.scale (2 then, its default now)" in caplog.text


def test_another_weight_of_the_experts_balance_is_told(train, tmp_path, caplog):
    settings = {"model": str(save_tiny_model(tmp_path / "experts", architecture="qwen3_moe")), "max_steps": 1}
    first = train(**settings).checkpoint
    train(**settings, router_aux_loss_coef=0.5, resume_from_checkpoint=str(first))
    assert "router_aux_loss_coef (0.0 then, 0.5 now)" in caplog.text


def test_flags_of_resuming_need_a_checkpoint(train):
    with pytest.raises(UsageError, match="--resume_from_checkpoint, which is not given"):
        train(resume_only_model=True)
