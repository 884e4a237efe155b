"""A process that is lost while a divided checkpoint is put together costs that checkpoint and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("deepspeed", reason="needs DeepSpeed, which `tox -e deepspeed` installs")

from tiny_jobs import QUICK, conversation, losses, words_of, write_rows

from martlet.cli import main
from martlet_sdk.tiny import save_tiny_model
from martlet_train.checkpoint import find_last, verify

TROUBLE = Path(__file__).parents[1] / "integration" / "strangers" / "trouble.py"


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_the_checkpoint_before_is_whole_and_goes_on(stage, tmp_path):
    write_rows(tmp_path / "rows.jsonl", [conversation(number) for number in range(13)])
    save_tiny_model(tmp_path / "model")
    settings = {
        **QUICK,
        "model": tmp_path / "model",
        "dataset": tmp_path / "rows.jsonl",
        "output_dir": tmp_path / "out",
        "max_steps": 6,
        "save_steps": 2,
        "logging_steps": 1,
        "tuner_type": "full",
    }
    trouble = {"external_plugins": TROUBLE, "callbacks": "trouble", "set": "callback.trouble.what=killed_while_saving"}
    processes = {"deepspeed": stage, "ddp_timeout": 60, "nproc_per_node": 2, "per_device_train_batch_size": 1}
    lost = {**settings, **trouble, **processes}
    program = [str(Path(sys.executable).with_name("martlet")), "sft", *words_of(lost)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(program, capture_output=True, text=True, timeout=420, check=False, env=environment)
    error = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1 and error.startswith("error: Rank 1 on "), ended.stderr
    assert "at step 4 was killed by SIGKILL" in error
    assert find_last(tmp_path / "out") == tmp_path / "out" / "checkpoint-2"
    assert str(tmp_path / "out" / "checkpoint-2") in error
    assert verify(tmp_path / "out" / "checkpoint-2")["facts"]["step"] == 2
    on = {"output_dir": tmp_path / "on", "resume_from_checkpoint": tmp_path / "out" / "checkpoint-2"}
    assert main(["sft", *words_of({**settings, **on, "per_device_train_batch_size": 2})]) == 0
    assert sorted(losses(tmp_path / "on")) == [3, 4, 5, 6]
