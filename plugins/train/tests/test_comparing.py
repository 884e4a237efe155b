"""What ``verify-resume`` calls a difference."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from martlet_train.comparing import compare_checkpoints, compare_runs
from martlet_train.epochs import CountUnits
from martlet_train.sampling import BatchSampler, EpochOrder
from martlet_train.state import load_state, save_state


@pytest.fixture
def pair(train, tmp_path):
    """Return the folders of a run and of its copy."""
    train(max_steps=2, save_steps=1, logging_steps=1, add_version=False)
    return tmp_path / "out", shutil.copytree(tmp_path / "out", tmp_path / "copy", symlinks=True)


def test_a_copy_does_not_differ_and_clocks_do_not_count(pair):
    one, other = pair
    log = other / "logging.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(line | {"elapsed_seconds": 1e9}) + "\n" for line in lines))
    assert compare_runs(one, other, "checkpoint-2") == []


def test_a_tensor_a_log_value_and_a_state_are_named(pair):
    one, other = pair
    weights = other / "checkpoint-2" / "model.safetensors"
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[3] += 0.5
    save_file(tensors, weights, {"format": "pt"})
    log = other / "logging.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[1]["loss"] = 1.5
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    scheduler = other / "checkpoint-2" / "scheduler.safetensors"
    save_state(scheduler, load_state(scheduler) | {"last_epoch": 9})
    found = compare_runs(one, other, "checkpoint-2")
    size = tensors[name].numel()
    assert f"checkpoint-2/model.safetensors: {name} differs in 1 of {size} values, by 0.5 at most" in found
    assert any(
        line.startswith("logging.jsonl: loss first differs at step 2: ") and " and 1.5" in line for line in found
    )
    assert "checkpoint-2/scheduler.safetensors: what it holds beside tensors differs" in found
    assert len(found) == 3


def test_what_only_one_has_and_many_tensors_are_told_shortly(pair):
    one, other = pair
    (other / "checkpoint-2" / "random_state.safetensors").unlink()
    weights = other / "checkpoint-2" / "model.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(weights).items()}, weights)
    found = compare_checkpoints(one / "checkpoint-2", other / "checkpoint-2")
    assert "checkpoint-2/random_state.safetensors: only one of the two runs wrote it" in found
    told = [line for line in found if "model.safetensors: " in line]
    assert len(told) == 4 and " more of " in told[-1]


def test_the_epoch_is_the_share_of_rows_whatever_the_split():
    for size, world, per_step in ((4, 1, 8), (1, 2, 8), (8, 1, 8)):
        sampler = BatchSampler(EpochOrder(units=13, seed=0), size, world_size=world)
        loader = type("Loader", (), {"batch_sampler": sampler})()
        state = type("State", (), {"global_step": 0, "epoch": 0.0})()
        found = []
        for step in range(1, 5):
            state.global_step = step
            CountUnits(loader, per_step).on_step_end(None, state, None)
            found.append(state.epoch)
        assert found == [8 / 13, 1.0, 1 + 8 / 13, 2.0]
