"""Two processes train exactly like one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROGRAM = """
import json, sys, martlet
martlet.run("sft", **json.loads(sys.argv[1]))
"""


@pytest.mark.long
def test_two_processes_are_one_with_twice_the_batch(prepare, train, tmp_path):
    import json

    split = {"max_steps": 4, "optim": "sgd", "learning_rate": 0.5, "save_only_model": True, "add_version": False}
    alone = train(**split, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    together = {**split, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    config = prepare(**together, output_dir=str(tmp_path / "two")).config
    given = {flag.name: value for flag, value, origin in config if origin.source == "code"}
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    subprocess.run([*command, json.dumps(given)], check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    expected = load_file(alone.checkpoint / "model.safetensors")
    for name, tensor in load_file(Path(tmp_path / "two" / "checkpoint-4" / "model.safetensors")).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
