"""Start command lines on two processes, and compare what they leave behind with what one process leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_jobs import QUICK, logged, newest, words_of

from martlet.cli import main

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
EXACT: dict[str, Any] = {
    **QUICK,
    "optim": "sgd",
    "learning_rate": 0.3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "num_train_epochs": 2,
    "tuner_type": "full",
    "save_only_model": True,
}
"""Plain gradient descent, so that rounding stays rounding; 13 rows, 8 a step, so that the last step lacks three."""
Jobs = dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]
"""Settings, and how a step is split on one process and on each of two."""
COUNTED_WITH_PADDING = ("total_flos",)
"""What depends on how much of a batch is padding, and so on how the rows of a step are split."""


@dataclass
class Together:
    """Command lines that two processes have run, one after the other."""

    done: list[list[dict[str, Any]]]
    """By process: exit status of each, and ``seen``: the numbers of the rows of each batch."""
    out: str
    err: str

    def seen(self, job: int) -> list[int]:
        """Return the numbers of all rows that a job's processes trained on."""
        return sorted(row for process in self.done for batch in process[job]["seen"] for row in batch)


def run_together(folder: Path, lines: list[list[str]], *, fails: bool = False, ranks: str = "ranks.py") -> Together:
    """Run command lines on two processes; they must succeed unless ``fails``."""
    place = folder / "lines.json"
    place.write_text(json.dumps(lines), encoding="utf-8")
    command = [*TORCHRUN, str(HERE / ranks), str(place)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=420, check=False, env=environment)
    done = [json.loads(place.with_suffix(f".{rank}").read_text(encoding="utf-8")) for rank in (0, 1)]
    if not fails:
        assert all(job["status"] == 0 for process in done for job in process), result.stderr[-4000:]
        assert [len(process) for process in done] == [len(lines)] * 2
    return Together(done, result.stdout, result.stderr)


def split(rows: int, batches: int) -> dict[str, Any]:
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batches}


def line_of(place: Path, output: str, settings: dict[str, Any], *, command: str = "sft", **more: Any) -> list[str]:
    """Return a command line that reads ``model`` and ``rows.jsonl`` of a folder and writes into it."""
    base = {"model": place / "model", "dataset": place / "rows.jsonl", "output_dir": place / output}
    if settings.get("eval_strategy"):
        base["val_dataset"] = place / "rows.jsonl"
    return [command, *words_of({**base, **settings, **more})]


def play(
    place: Path, name: str, jobs: Jobs, further: list[list[str]] | None = None, *, command: str = "sft"
) -> Together:
    """Run jobs on one process, into ``one/``, and on two, into ``two/``, and further command lines on two."""
    lines = []
    for job, (settings, alone, each) in jobs.items():
        assert main(line_of(place, f"one/{job}", {**EXACT, **settings, **alone}, command=command)) == 0
        lines.append(line_of(place, f"two/{job}", {**EXACT, **settings, **each}, command=command))
    (place / name).mkdir()
    return run_together(place / name, [*lines, *(further or ())])


def same_logs(one: Path, two: Path) -> None:
    """Compare every value of every log line, to rounding."""
    lines, others = logged(one), logged(two)
    assert lines and [line["step"] for line in lines] == [line["step"] for line in others]
    for line, other in zip(lines, others, strict=True):
        assert line.keys() == other.keys()
        for key, value in line.items():
            if isinstance(value, float) and key not in COUNTED_WITH_PADDING:
                assert other[key] == pytest.approx(value, rel=2e-5, abs=1e-6), (key, line["step"])


def same_weights(one: Path, two: Path) -> None:
    """Compare the last checkpoints, to rounding."""
    assert newest(one).name == newest(two).name
    expected, found = (load_file(next(newest(folder).glob("*model.safetensors"))) for folder in (one, two))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=2e-6, msg=name)
