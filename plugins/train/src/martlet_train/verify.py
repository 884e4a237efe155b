"""``martlet verify-resume``: does this very command, interrupted and resumed, do what it does uninterrupted?"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from martlet import MartletError, Run, UsageError
from martlet.cli import expand, find_command, first_flags, load_plugins, make_run

from .args import TrainerArguments

HELP = """usage: martlet verify-resume [--steps N] COMMAND [--flag value ...]

Train the first N steps of a command uninterrupted; train them again, interrupted half-way and resumed; compare logs,
weights, optimizer and random state bit for bit. Exit status 1 if anything differs. Everything is written to a
temporary folder; --output_dir is not touched.

  --steps N   how many steps, at least 2 (default 6)"""
STEPS = 6
ENTRY = "from martlet.cli import entry; entry()"
PAUSE = 0.02
"""Seconds between two looks for the checkpoint at which a run is interrupted."""
SHOWN = 12
"""Lines of a failed command that are shown."""


def main(run: Run) -> int:
    """Run the three short trainings and say what differs; return 1 if anything does."""
    steps, words = _own_flags(run.words)
    if words is None:
        print(HELP)
        return 0
    _check(words)
    folder = Path(mkdtemp(prefix="martlet-verify-"))
    keep = False
    try:
        keep = Verification(words, steps, folder).differs()
        if keep:
            print(f"Both are kept for you to look at: {folder}")
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return int(keep)


def _own_flags(words: list[str]) -> tuple[int, list[str] | None]:
    """Split the words before the command from it; no command: it is help that is wanted."""
    steps = STEPS
    while words and words[0].startswith("-"):
        flag, _, value = words[0].partition("=")
        if flag in ("-h", "--help"):
            return steps, None
        if flag != "--steps":
            raise UsageError(f"{flag}: verify-resume has no such flag before the command; it has --steps N and --help.")
        value, words = (value, words[1:]) if value else (words[1] if len(words) > 1 else "", words[2:])
        if not re.fullmatch(r"\d{1,6}", value) or int(value) < 2:
            raise UsageError(f"--steps {value}: give a whole number of at least 2, so that there is a middle.")
        steps = int(value)
    if not words:
        raise UsageError("verify-resume takes a command line: martlet verify-resume sft --model ... --dataset ...")
    return steps, words


def _check(words: list[str]) -> None:
    """Refuse a command that is wrong, does not train, or does not begin at its first step, before it is run."""
    words = expand(words)
    manager, layer = load_plugins(first_flags(words))
    command, rest = find_command(manager, words)
    if command.raw:
        raise UsageError(f"verify-resume: {command.name} does not train. Give a training command, such as sft.")
    planned = make_run(command, manager, rest, layer)
    if TrainerArguments not in planned.config:
        raise UsageError(f"verify-resume: {command.name} does not train. Give a training command, such as sft.")
    if planned.config[TrainerArguments].resume_from_checkpoint:
        raise UsageError("verify-resume begins at the first step: leave --resume_from_checkpoint out.")
    planned.emit("on_config", config=planned.config)


@dataclass
class Verification:
    """Three short trainings of one command."""

    words: list[str]
    steps: int
    folder: Path

    def differs(self) -> bool:
        """Run them and print what differs between the interrupted and the uninterrupted one."""
        whole, parts, half = self.folder / "uninterrupted", self.folder / "interrupted", self.steps // 2
        print(f"martlet {shlex.join(self.words)}")
        print(f"1 of 3: {self.steps} steps. All three together take up to three times as long as this one.", flush=True)
        began = time.monotonic()
        with self._started(whole) as program:
            self._end(program, whole, (0,))
        took = time.monotonic() - began
        print(f"2 of 3: again, with SIGTERM after step {half}. At most {2 * took:.0f} s to go.", flush=True)
        with self._started(parts) as program:
            while program.poll() is None and not (parts / f"checkpoint-{half}").is_dir():
                time.sleep(PAUSE)
            if program.poll() is None:
                program.send_signal(signal.SIGTERM)
            self._end(program, parts, (0, 128 + signal.SIGTERM))
        stopped = max((step for step in _steps(parts) if step < max(_steps(whole))), default=None)
        if stopped is None:
            raise MartletError(
                f"The command ended at step {max(_steps(whole))}: too early to be interrupted. Give it more rows or "
                "epochs, or --max_epochs a higher value."
            )
        print(f"3 of 3: on from step {stopped}.", flush=True)
        with self._started(parts, "--resume_from_checkpoint", str(parts / f"checkpoint-{stopped}")) as program:
            self._end(program, parts, (0,))
        return self._tell(whole, parts, half, stopped)

    def _tell(self, whole: Path, parts: Path, half: int, stopped: int) -> bool:
        from .comparing import compare_checkpoints, compare_runs

        last = f"checkpoint-{max(_steps(whole))}"
        before = compare_checkpoints(whole / f"checkpoint-{half}", parts / f"checkpoint-{half}")
        found = compare_runs(whole, parts, last)
        for line in found or before:
            print(f"  {line}")
        if before:
            print(
                f"The two runs differed at step {half} already, before the interruption: this command does not repeat "
                "itself, so nothing can be said of resuming. Try --full_determinism true, and plugins without chance."
            )
        elif found:
            print(f"Resumed at step {stopped}, the run differs from the uninterrupted one, in what is listed above.")
        else:
            print(
                f"Resuming is exact: interrupted after step {stopped} and resumed, {last} and the log of every step "
                "are those of the uninterrupted run, bit for bit."
            )
        return bool(before or found)

    @contextmanager
    def _started(self, output: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start the command with its outputs turned away from the user's folder; end it, whatever happens here."""
        half = self.steps // 2
        ours = {
            "output_dir": output, "add_version": "false", "logging_dir": output / "runs", "push_to_hub": "false",
            "max_steps": self.steps, "save_strategy": "steps", "save_steps": half, "save_only_model": "false",
            "save_total_limit": self.steps + 1, "logging_strategy": "steps", "logging_steps": 1,
            "logging_first_step": "true", "report_to": "none", "create_checkpoint_symlink": "true",
        }  # fmt: skip
        words = [word for name, value in ours.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-P", "-c", ENTRY, *_without(self.words, set(ours)), *words, *more]
        environment = {name: value for name, value in os.environ.items() if name != "MARTLET_RUN_FOLDER"}
        with open(self._log(output), "ab") as log:
            program = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        try:
            yield program
        finally:
            if program.poll() is None:
                program.terminate()
                try:
                    program.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    program.kill()
                    program.wait()

    def _log(self, output: Path) -> Path:
        return self.folder / f"{output.name}.log"

    def _end(self, program: subprocess.Popen[bytes], output: Path, fine: tuple[int, ...]) -> None:
        """Wait for the command; ``MartletError`` with its last words if it fails."""
        status = program.wait()
        if status not in fine:
            said = self._log(output).read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN:]
            raise MartletError("\n".join([f"The command failed (exit status {status}). Its last words:", *said]))


def _steps(folder: Path) -> list[int]:
    """Return the steps of a run's checkpoints; ``MartletError`` if there is none."""
    found = [int(match[1]) for path in folder.glob("checkpoint-*") if (match := re.fullmatch(r".*-(\d+)", path.name))]
    if not found:
        raise MartletError(f"{folder.name}: the command has written no checkpoint.")
    return found


def _without(words: list[str], flags: set[str]) -> list[str]:
    """Leave out flags with their values: those of a list would be added to ours."""
    kept, skipping = [], False
    for word in words:
        if word.startswith("--"):
            skipping = word[2:].partition("=")[0].replace("-", "_") in flags
        if not skipping:
            kept.append(word)
    return kept
