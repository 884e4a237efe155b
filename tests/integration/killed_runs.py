"""Train and be killed while saving, again and again; run by test_stopped_runs.py.

Reads command lines as JSON from standard input. Each is played by a child process that SIGKILL ends at once (every
second one) or a random moment after it has begun to write a checkpoint; so torch is imported once for all of them.
Prints how often a child was killed while a checkpoint was half-written.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import peft  # noqa: F401

from martlet.cli import main


def play(words: list[str]) -> None:
    """Run a command line in this process, quietly, and end it."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os._exit(main(words))


def being_written(folder: Path) -> bool:
    return folder.is_dir() and any(
        ".writing-" in name and name.startswith(".checkpoint") for name in os.listdir(folder)
    )


def kill_while_saving(words: list[str], after: int, wait: float) -> bool:
    """Kill a child ``wait`` seconds into its save number ``after``; tell whether that save was half-done."""
    folder = Path(words[words.index("--output_dir") + 1])
    child = os.fork()
    if not child:
        play(words)
    seen, writing = 0, False
    while seen < after:
        if os.waitpid(child, os.WNOHANG)[0]:
            raise SystemExit(f"the run ended before its save number {after}")
        now = being_written(folder)
        seen += now and not writing
        writing = now
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return being_written(folder)


if __name__ == "__main__":
    chance = random.Random(0)
    half_written = 0
    for number, words in enumerate(json.loads(sys.stdin.read())):
        half_written += kill_while_saving(words, 2 + number, chance.random() * 0.02 * (number % 2))
    print(half_written)
