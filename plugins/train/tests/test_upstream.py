"""What is overridden in ``transformers.Trainer``, against the installed release."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from transformers import Trainer
from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS, OptimizerContext
from transformers.training_args import OptimizerNames

from martlet_train.trainer import CoreTrainer

OVERRIDDEN = {
    "_evaluate": ["self", "trial", "ignore_keys_for_eval", "skip_scheduler"],
    "_get_num_items_in_batch": ["self", "batch_samples", "device"],
    "_load_callback_state": ["self"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_load_rng_state": ["self", "checkpoint"],
    "_load_scaler": ["self", "checkpoint"],
    "_prepare_for_training": ["self", "max_steps", "train_dataloader", "resume_from_checkpoint"],
    "_save_checkpoint": ["self", "model", "trial"],
    "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    "create_optimizer": ["self", "model"],
    "evaluation_loop": [
        "self", "dataloader", "description", "prediction_loss_only", "ignore_keys", "metric_key_prefix",
    ],
    "floating_point_ops": ["self", "inputs"],
    "get_batch_samples": ["self", "epoch_iterator", "num_batches", "device"],
    "get_eval_dataloader": ["self", "eval_dataset"],
    "get_train_dataloader": ["self"],
    "log": ["self", "logs", "start_time"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
}  # fmt: skip
CALLED = {
    "set_initial_training_values": ["self", "args", "dataloader"],
    "get_optimizer_cls_and_kwargs": ["args", "model"],
    "train": ["self", "resume_from_checkpoint", "trial", "ignore_keys_for_eval"],
    "remove_callback": ["self", "callback"],
    "store_flos": ["self"],
}
"""Not overridden, but called or relied on."""
STATE = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged", "_initial_global_step")
"""Attributes of the loop that a checkpoint keeps."""


def parameters(name):
    return list(inspect.signature(getattr(Trainer, name)).parameters)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_takes_what_upstream_passes(name):
    assert parameters(name) == OVERRIDDEN[name]
    assert list(inspect.signature(getattr(CoreTrainer, name)).parameters) == OVERRIDDEN[name]


@pytest.mark.parametrize("name", CALLED)
def test_a_method_that_we_call_is_as_we_call_it(name):
    assert parameters(name) == CALLED[name]


def test_the_list_is_complete():
    mine = {name for name in vars(CoreTrainer) if hasattr(Trainer, name) and not name.startswith("__")}
    assert mine - {"loss_is_scaled_for_ga"} == set(OVERRIDDEN)


def test_every_optimizer_has_a_handler_that_takes_what_we_pass():
    assert {one.value for one in OptimizerNames} == {getattr(name, "value", name) for name in _OPTIMIZER_HANDLERS}
    names = [field.name for field in dataclasses.fields(OptimizerContext)]
    assert names == ["args", "model", "optimizer_kwargs", "adam_kwargs", "optim_args"]


def test_upstream_still_keeps_the_state_that_we_save():
    source = inspect.getsource(Trainer)
    assert all(f"self.{name}" in source for name in STATE)
    assert "loss_is_scaled_for_ga" in source
    assert "skip_first_batches(train_dataloader" in source  # resuming relies on it for the position in an epoch
