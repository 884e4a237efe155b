"""Whatever ends a training run leaves whole checkpoints, and going on from one is as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_jobs import QUICK, digests, losses, newest, record, words_of

from martlet_train.checkpoint import find_last, sweep, verify

HERE = Path(__file__).parent
JOB = {**QUICK, "max_steps": 24, "lora_dropout": 0.2, "per_device_train_batch_size": 2, "logging_steps": 1}
SAME = ("adapter_model.safetensors", "optimizer.safetensors", "scheduler.safetensors", "random_state.safetensors")


def job(model: Path, rows: Path, output: Path, **settings: object) -> list[str]:
    base = {"model": model, "dataset": rows, "output_dir": output, **JOB}
    return ["sft", *words_of({**base, **settings})]


@pytest.fixture(scope="module")
def uninterrupted(tiny_model, rows, tmp_path_factory):
    """Return the folder of the whole run."""
    from martlet.cli import main

    folder = tmp_path_factory.mktemp("uninterrupted") / "output"
    assert main(job(tiny_model, rows, folder)) == 0
    return folder


def same_state(one: Path, other: Path) -> None:
    """Compare weights, optimizer, schedule and random state of two checkpoints, bit for bit."""
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def wait_for_step(program: subprocess.Popen[str], folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while program.poll() is None and time.monotonic() < deadline:
        log = folder / "logging.jsonl"
        if log.is_file() and len(log.read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"the run did not get to step {step}: {program.communicate()[1]}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_that_the_run_goes_on_from(
    number, code, tiny_model, rows, tmp_path, typed, uninterrupted
):
    folder = tmp_path / "output"
    slowly = {"external_plugins": HERE / "strangers" / "slow_steps.py", "callbacks": "slow_steps"}
    words = [str(Path(sys.executable).with_name("martlet")), *job(tiny_model, rows, folder, **slowly)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        wait_for_step(program, folder, 3)
        program.send_signal(number)
        said = program.communicate(timeout=60)[1].splitlines()
    assert program.returncode == code
    assert "Traceback" not in "\n".join(said)
    assert sum(line.startswith(f"{number.name}: finishing this step") for line in said) == 1
    last = find_last(folder)
    step = verify(last)["facts"]["step"]
    assert 3 <= step < JOB["max_steps"] and (folder / "last").resolve() == last
    assert said[-1].startswith(f"error: Stopped by {number.name} at step {step} of 24. To continue, add ")
    assert f"--resume_from_checkpoint {last}" in said[-1]
    assert record(folder)["ended"]["outcome"].startswith(f"Interrupted: Stopped by {number.name}")
    done = typed(*job(tiny_model, rows, folder, resume_from_checkpoint=last))
    assert done.code == 0, done.err
    same_state(newest(folder), newest(uninterrupted))
    assert losses(folder) == losses(uninterrupted)
    assert record(folder)["ended"]["outcome"] == "completed"


def test_killed_while_saving_every_checkpoint_is_whole_and_the_run_goes_on(
    tiny_model, rows, tmp_path, typed, uninterrupted
):
    folders = [tmp_path / str(number) for number in range(4)]
    lines = [job(tiny_model, rows, folder, save_steps=1) for folder in folders]
    program = [sys.executable, str(HERE / "killed_runs.py")]
    done = subprocess.run(
        program, input=json.dumps(lines), capture_output=True, text=True, timeout=180, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1  # else nothing was killed at the moment this is about
    for number, folder in enumerate(folders):
        last = find_last(folder)
        written = list(folder.glob("checkpoint-*"))
        assert len(written) > number
        assert {verify(one)["facts"]["step"] for one in written} == set(range(1, len(written) + 1))
        assert verify(folder / "last") == verify(last)
    resumed = typed(*job(tiny_model, rows, folders[-1], save_steps=1, resume_from_checkpoint=folders[-1] / "last"))
    assert resumed.code == 0, resumed.err
    same_state(newest(folders[-1]), newest(uninterrupted))
    assert not [path for path in folders[-1].iterdir() if path.name.startswith(".")]
    assert sweep(folders[0]) or not [path for path in folders[0].iterdir() if path.name.startswith(".")]


def spoil_missing(checkpoint: Path) -> str:
    (checkpoint / "optimizer.safetensors").unlink()
    return "missing: optimizer.safetensors"


def spoil_altered(checkpoint: Path) -> str:
    weights = checkpoint / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    return "adapter_model.safetensors"


def spoil_shorter(checkpoint: Path) -> str:
    state = checkpoint / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:-20])
    return "trainer_state.json"


def spoil_index(checkpoint: Path) -> str:
    (checkpoint / "checkpoint.json").unlink()
    return "checkpoint.json"


@pytest.mark.parametrize("spoil", [spoil_missing, spoil_altered, spoil_shorter, spoil_index])
def test_a_spoilt_checkpoint_is_refused_by_name(spoil, tiny_model, rows, tmp_path, typed, uninterrupted):
    checkpoint = Path(shutil.copytree(newest(uninterrupted), tmp_path / "run" / "checkpoint-24"))
    named = spoil(checkpoint)
    before = digests(checkpoint)
    done = typed(*job(tiny_model, rows, tmp_path / "output", max_steps=25, resume_from_checkpoint=checkpoint))
    assert done.code == 1
    assert str(checkpoint) in done.error and named in done.error and "--resume_from_checkpoint" in done.error
    assert digests(checkpoint) == before
    assert not (tmp_path / "output").exists()
