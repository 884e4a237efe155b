"""``NPROC_PER_NODE=2 martlet sft``: one command line, two processes, one run."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_jobs import QUICK, losses, record, words_of

from martlet_train.checkpoint import find_last, verify

HERE = Path(__file__).parent
JOB = {**QUICK, "per_device_train_batch_size": 1, "logging_steps": 1, "save_steps": 2, "callbacks": "slow_steps"}


@contextmanager
def launched(folder: Path, *words: str, **settings: object) -> Iterator[subprocess.Popen[str]]:
    """Start ``martlet`` on two processes; end whatever is left."""
    program = [str(Path(sys.executable).with_name("martlet")), *words, *words_of({**JOB, **settings})]
    environment = os.environ | {"NPROC_PER_NODE": "2"}
    with subprocess.Popen(
        program, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # the ranks end with it


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> Path:
    """Return the run's folder once that step is logged."""
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        logs = list(folder.glob("v*/logging.jsonl"))
        if logs and len(logs[0].read_text().splitlines()) >= step:
            return logs[0].parent
        time.sleep(0.05)
    raise AssertionError(f"the run did not get to step {step}: {process.communicate(timeout=20)}")


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes of the ranks, in order."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for pid in map(int, children):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found.update({int(one.removeprefix(b"RANK=")): pid for one in variables if one.startswith(b"RANK=")})
    return [found[rank] for rank in sorted(found)]


def test_one_command_line_is_one_run(tiny_model, rows, tmp_path):
    (tmp_path / "slow_steps.py").write_text((HERE / "strangers" / "slow_steps.py").read_text())
    (tmp_path / "run.yaml").write_text(f"command: sft\nmodel: {tiny_model}\ndataset: {rows}\nmax_steps: 3\n")
    settings = {"external_plugins": "slow_steps.py", "output_dir": "out", "add_version": True, "warmup_ratio": 0.5}
    with launched(tmp_path, "run.yaml", **settings) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    folder, *others = (tmp_path / "out").iterdir()
    assert not others and re.fullmatch(r"v0-\d{8}-\d{6}", folder.name)
    assert len(losses(folder)) == 3 and record(folder)["world_size"] == 2
    assert [row["name"] for row in record(folder)["plugins"] if row["name"] == "slow_steps"] == ["slow_steps"]
    assert out.count("step 1/3") == 1 and err.count("INFO: Prepared 13 rows") == 1
    assert "OMP_NUM_THREADS" not in err and "torchrun" not in err
    assert (folder / "last").resolve() == folder / "checkpoint-3"


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_a_signal_saves_once_and_is_told_once(number, tiny_model, rows, tmp_path):
    settings = {"model": tiny_model, "dataset": rows, "external_plugins": HERE / "strangers" / "slow_steps.py"}
    with launched(tmp_path, "sft", **settings, output_dir="out", add_version=True, max_steps=400) as process:
        folder = wait_for_step(process, tmp_path / "out", 3)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert err.count(f"{signal.Signals(number).name}: finishing this step") == 1 and "Traceback" not in err
    last = find_last(folder)
    step = verify(last)["facts"]["step"]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert lines == [err.splitlines()[-1]]
    assert lines[0].startswith(
        f"error: Stopped by {signal.Signals(number).name} at step {step} of 400. To continue, add "
    )
    assert str(last) in lines[0]
    assert max(losses(folder)) == step


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)])
def test_a_rank_that_is_lost_is_named_with_its_last_step(number, tiny_model, rows, tmp_path):
    settings = {"model": tiny_model, "dataset": rows, "external_plugins": HERE / "strangers" / "slow_steps.py"}
    settings |= {"output_dir": "out", "add_version": True, "max_steps": 400, "ddp_timeout": 8}
    with launched(tmp_path, "sft", **settings) as process:
        folder = wait_for_step(process, tmp_path / "out", 5)
        pids = ranks_of(process)
        os.kill(pids[1], number)
        start = time.monotonic()
        _, err = process.communicate(timeout=120)
    assert time.monotonic() - start < 60
    error = err.splitlines()[-1]
    assert process.returncode == 1 and err.count("error: ") == 1 and "Traceback" not in err, err
    assert re.search(rf"[Rr]ank 1 on {socket.gethostname()}\b", error) and re.search(r"step \d+", error), error
    assert ("killed by SIGKILL" in error) == (number == signal.SIGKILL)
    last = find_last(folder)
    assert verify(last)["facts"]["step"] >= 4 and str(last) in error
    assert json.loads((folder / "run.json").read_text())["ended"]["outcome"].endswith(error.removeprefix("error: "))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
