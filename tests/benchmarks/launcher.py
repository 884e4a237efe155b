"""Print what starting several processes costs beyond torchrun: from the command line to the first line of rank 0.

    python tests/benchmarks/launcher.py [--runs 5] [--processes 2] [--check]

On the one side ``martlet`` starts a command that has every flag of ``sft``, imports what training imports and prints a
line; on the other ``torchrun`` starts a script that imports the same and prints it. Both sides run in turn, after a run
of each that warms the file cache; medians are compared. ``--check`` exits 1 where the target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 1.0
SCRIPT = """
import torch, transformers
from transformers import Trainer
print("first\\n", end="", flush=True)
"""
PLUGIN = """
from martlet import Command, hookimpl

def main(run):
    import torch, transformers
    from transformers import Trainer
    print("first\\n", end="", flush=True)

@hookimpl
def provide_commands():
    yield Command("first-line", main, roles=("model", "template", "data", "train", "tuner"))
"""
MARTLET = [sys.executable, "-c", "import sys; from martlet.cli import entry; entry()", "first-line"]
MODEL = "import sys; from martlet_sdk.tiny import save_tiny_model; save_tiny_model(sys.argv[1])"


def first_line(words: list[str], environment: dict[str, str]) -> float:
    """Return the seconds until a command prints a line, and wait for its end."""
    start = time.perf_counter()
    with subprocess.Popen(
        words, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        said = child.stdout.readline() if child.stdout else ""
        passed = time.perf_counter() - start
        rest, errors = child.communicate(timeout=120)
    if said.strip() != "first" or child.returncode:
        sys.exit(f"{' '.join(words)} ended with {child.returncode}: {said}{rest}{errors}")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="exit 1 where the target is missed")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "first_line.py").write_text(PLUGIN, encoding="utf-8")
        (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
        subprocess.run([sys.executable, "-c", MODEL, str(folder / "model")], check=True, capture_output=True)
        count = str(chosen.processes)
        flags = ["--external_plugins", str(folder / "first_line.py"), "--model", str(folder / "model")]
        threads = {"OMP_NUM_THREADS": "1"}
        sides = {
            "torchrun": ([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", count], threads),
            "martlet": ([*MARTLET, *flags, "--output_dir", str(folder / "out")], threads | {"NPROC_PER_NODE": count}),
        }
        sides["torchrun"][0].append(str(folder / "script.py"))
        found: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(chosen.runs + 1):
            for side, (words, environment) in sides.items():
                seconds = first_line(words, environment)
                if number:
                    found[side].append(seconds)
    median = {side: statistics.median(times) for side, times in found.items()}
    beyond = median["martlet"] - median["torchrun"]
    print(f"first line of rank 0 of {count}, median of {chosen.runs}: ", end="")
    print(", ".join(f"{side} {seconds:.2f} s" for side, seconds in median.items()))
    missed = beyond > TARGET
    print(f"launcher beyond torchrun  {beyond:.2f} s  (at most {TARGET:g} s){'   MISSED' if missed else ''}")
    return 1 if chosen.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
