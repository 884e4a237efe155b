"""Two processes train exactly like one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from martlet_sdk.tiny import save_tiny_model

PROGRAM = """
import json, sys, martlet

martlet.run("sft", **json.loads(sys.argv[1]))
"""


def together(prepare, folder, **settings):
    """Train in two processes; return the folder."""
    config = prepare(**settings, output_dir=str(folder), add_version=False).config
    given = {flag.name: value for flag, value, origin in config if origin.source == "code"}
    program = folder.with_suffix(".py")
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    subprocess.run([*command, json.dumps(given)], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return folder


@pytest.mark.long
def test_two_processes_are_one_with_twice_the_batch(prepare, train, tmp_path):

    split = {"max_steps": 4, "optim": "sgd", "learning_rate": 0.5, "save_only_model": True}
    alone = train(**split, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    two = together(prepare, tmp_path / "two", **split, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    expected = load_file(alone.checkpoint / "model.safetensors")
    for name, tensor in load_file(two / "checkpoint-4" / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_two_processes_resume_to_the_bit_and_log_every_channel(prepare, tmp_path):
    """The rows of one process are of another channel than those of the other; each has its own dropout."""
    rows = tmp_path / "rows.jsonl"
    lines = [{"query": "say", "response": f"word {n}", "channel": "ab"[n % 2]} for n in range(16)]
    rows.write_text("\n".join(map(json.dumps, lines)))
    model = save_tiny_model(tmp_path / "model", architecture="gpt2", resid_pdrop=0.3)
    settings = {
        "model": str(model),
        "dataset": [str(rows)],
        "dataset_shuffle": False,
        "train_dataloader_shuffle": False,
        "gradient_accumulation_steps": 2,
        "enable_channel_loss": True,
        "remove_unused_columns": False,
        "max_steps": 3,
        "save_steps": 1,
        "logging_steps": 1,
    }
    whole = together(prepare, tmp_path / "whole", **settings)
    resumed = together(prepare, tmp_path / "resumed", **settings, resume_from_checkpoint=str(whole / "checkpoint-1"))
    for name in ("model.safetensors", "random_state_0.safetensors", "random_state_1.safetensors"):
        assert (resumed / "checkpoint-3" / name).read_bytes() == (whole / "checkpoint-3" / name).read_bytes()
    first = json.loads((whole / "logging.jsonl").read_text().splitlines()[0])
    assert "loss_a" in str(first) and "loss_b" in str(first)


ONE_STOPS = """
from martlet import Callback, hookimpl

class OneStops:
    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = state.global_step == 1 and args.process_index == 0
        control.should_training_stop = state.global_step == 2 and args.process_index == 1

@hookimpl
def provide_callbacks():
    yield Callback("one_stops", OneStops)
"""


@pytest.mark.long
def test_what_a_callback_asks_for_in_one_process_counts_for_all(prepare, tmp_path):
    (tmp_path / "one_stops.py").write_text(ONE_STOPS)
    plugins = [str(Path(__file__).with_name("standins.py")), str(tmp_path / "one_stops.py")]
    settings = {"external_plugins": plugins, "callbacks": ["one_stops"], "ddp_timeout": 30}
    two = together(prepare, tmp_path / "two", **settings, max_steps=4, save_steps=4, per_device_train_batch_size=1)
    assert sorted(path.name for path in two.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
