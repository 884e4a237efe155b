"""Print what Martlet costs before it does anything: start-up, time to an error, memory, size of the kernel.

    python tests/benchmarks/startup.py [--runs 10] [--check]

CPU seconds are user + system time of one child process each, as the operating system accounts for it; the median of
``--runs`` runs is printed, after one run that warms the file cache. ``--check`` exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

MARTLET = [sys.executable, "-c", "import sys; from martlet.cli import entry; entry()"]
HEAVY = ("torch", "numpy", "transformers", "datasets", "peft", "pydantic")
IMPORTED = f"""
import contextlib, io, json, sys
from martlet.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(sys.argv[1:])
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
MODEL = "import sys; from martlet_sdk.tiny import save_tiny_model; save_tiny_model(sys.argv[1])"


@dataclass
class Cost:
    """What one child process took."""

    cpu: float
    """Seconds."""
    wall: float
    """Seconds."""
    memory: float
    """Largest resident set, MiB."""
    status: int
    said: str
    """The last line on standard error."""


def run(*words: str) -> Cost:
    """Run one command line in a process of its own."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        child = subprocess.Popen([*MARTLET, *words], stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read().strip().splitlines()
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Cost(usage.ru_utime + usage.ru_stime, wall, kilobytes / 1024, child.returncode, said[-1] if said else "")


def imported(*words: str) -> list[str]:
    """Return which heavy libraries a command line imports."""
    command = [sys.executable, "-c", IMPORTED, *words]
    found: list[str] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


class Table:
    def __init__(self) -> None:
        self.missed = 0
        print(f"{'what':<46} {'measured':>12} {'target':>12}")

    def row(self, what: str, value: float, target: float, unit: str, digits: int = 3) -> None:
        """Print a number beside the largest one that is good enough."""
        missed = value > target
        self.missed += missed
        number = f"{value:.{digits}f} {unit}".rstrip()
        print(f"{what:<46} {number:>12} {f'{target:g} {unit}'.rstrip():>12}{'   MISSED' if missed else ''}", flush=True)

    def imports(self, what: str, found: list[str]) -> None:
        verdict = "   MISSED" if "torch" in found else ""
        self.missed += bool(verdict)
        print(f"{what + ' imports':<46} {', '.join(found) or 'none':>12} {'no torch':>12}{verdict}", flush=True)


def measure_help(table: Table, runs: int, commands: set[str]) -> None:
    """CPU seconds of the two help pages, and what they import."""
    for words, target in ((["--help"], 0.25), (["sft", "--help"], 0.4)):
        what = f"martlet {' '.join(words)}"
        if len(words) == 2 and words[0] not in commands:
            print(f"{what:<46} {'no such command here':>25}")
            continue
        run(*words)
        table.row(
            f"{what}, CPU, median of {runs}", statistics.median(run(*words).cpu for _ in range(runs)), target, "s"
        )
        table.imports(what, imported(*words))


def measure_errors(table: Table, runs: int, folder: Path) -> None:
    """Wall seconds to the error for the mistakes that people make."""
    subprocess.run([sys.executable, "-c", MODEL, str(folder / "model")], check=True, capture_output=True)
    usual = ["sft", "--model", str(folder / "model"), "--output_dir", str(folder / "output")]
    mistakes = {
        "mistyped flag": [*usual, "--dataset", "rows.jsonl", "--learning_rat", "1e-4"],
        "unknown component": [*usual, "--dataset", "rows.jsonl", "--tuner_type", "no_such_tuner"],
        "missing dataset file": [*usual, "--dataset", str(folder / "missing.jsonl")],
    }
    for what, words in mistakes.items():
        found = [run(*words) for _ in range(max(3, runs // 2))]
        table.row(f"{what}, wall, median of {len(found)}", statistics.median(cost.wall for cost in found), 1.0, "s")
        print(f"    exit {found[0].status}: {found[0].said[:140]}")


def measure_memory(table: Table, runs: int) -> None:
    found = [run("plugin", "list") for _ in range(max(3, runs // 2))]
    table.row("martlet plugin list, resident memory", statistics.median(cost.memory for cost in found), 60, "MiB", 1)


def measure_kernel(table: Table) -> None:
    spec = find_spec("martlet")
    if spec is None or spec.origin is None:
        sys.exit("martlet is not installed")
    files = sorted(Path(spec.origin).parent.rglob("*.py"))
    sizes = [file.read_text(encoding="utf-8").count("\n") for file in files]
    table.row("kernel, lines", sum(sizes), 2000, "", 0)
    table.row("kernel, lines of its longest file", max(sizes), 400, "", 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    chosen = parser.parse_args()
    listed = subprocess.run([*MARTLET, "plugin", "list", "--json"], check=True, capture_output=True, text=True)
    found = json.loads(listed.stdout)
    commands = {row["name"] for row in found["components"] if row["kind"] == "commands"}
    print(f"{len(found['plugins'])} plugins, {len(found['components'])} components, Python {sys.version.split()[0]}")
    table = Table()
    measure_help(table, chosen.runs, commands)
    if "sft" in commands:
        with tempfile.TemporaryDirectory() as folder:
            measure_errors(table, chosen.runs, Path(folder))
    measure_memory(table, chosen.runs)
    measure_kernel(table)
    return 1 if chosen.check and table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
