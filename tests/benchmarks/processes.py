"""Supervised tokens a second of ``martlet sft`` on two processes, beside one: one thread in each.

The same model, rows and rows in a step on both sides; runs are interleaved and medians are printed.
Usage: processes.py [--rounds N] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CLOCK = Path(__file__).parent / "plugins" / "clock.py"
PROGRAM = "import json, sys, martlet; martlet.run('sft', **json.loads(sys.argv[1]))"
ROWS = 8
"""Rows in a step, on each side."""
WARM = 3
"""Steps at the start that are not counted."""


def run(folder: Path, processes: int, steps: int, number: int) -> float:
    """Train; return the median seconds of a step."""
    out = folder / f"{processes}-{number}"
    settings: dict[str, Any] = {
        "model": str(folder / "model"), "dataset": [str(folder / "rows.jsonl")], "output_dir": str(out),
        "add_version": False, "tuner_type": "full", "max_steps": steps, "gradient_accumulation_steps": 1,
        "per_device_train_batch_size": ROWS // processes, "logging_steps": steps, "save_strategy": "no",
        "report_to": ["none"], "gradient_checkpointing": False, "use_cpu": True, "log_level": "error",
        "external_plugins": [str(CLOCK)], "callbacks": ["clock"],
    }  # fmt: skip
    program = folder / "program.py"
    program.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = torchrun if processes > 1 else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run(
        [*command, str(program), json.dumps(settings)], check=True, capture_output=True, env=environment, timeout=600
    )
    times = [float(word) for word in (out / "times.txt").read_text().split()]
    return statistics.median(later - one for one, later in zip(times[WARM:], times[WARM + 1 :], strict=False))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16)
    options = parser.parse_args()
    from martlet_sdk.tiny import save_tiny_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_tiny_model(folder / "model", layers=4, hidden=384)
        texts = [" ".join(f"word{(n * 31 + k) % 97}" for k in range(30)) for n in range(ROWS * 4)]
        rows = [json.dumps({"query": f"Q{n}", "response": text}) for n, text in enumerate(texts)]
        (folder / "rows.jsonl").write_text("\n".join(rows))
        found: dict[int, list[float]] = {1: [], 2: []}
        for number in range(options.rounds):
            for processes, seconds in found.items():
                seconds.append(run(folder, processes, options.steps, number))
    one, two = (statistics.median(seconds) for seconds in found.values())
    print(f"SFT on two processes against one, tokens/s           {one / two:7.3f}   at least 1.5")
    print(f"a step: {1e3 * one:.0f} ms on one process, {1e3 * two:.0f} ms on two")
    return 0


if __name__ == "__main__":
    sys.exit(main())
