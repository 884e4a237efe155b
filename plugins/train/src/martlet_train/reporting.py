"""What a training run tells: a progress bar, a line for each log event, ``logging.jsonl``, TensorBoard, loss curves.

``--report_to tensorboard`` is written here, into ``runs/``. Other names (wandb, swanlab, mlflow, ...) are left to the
integrations of transformers: hand ``other_reports(names)`` to ``TrainingArguments(report_to=...)``. tensorboard and
matplotlib are imported when they are first needed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback

from martlet.errors import UsageError

from .event_log import EventLog
from .log_lines import describe

LOG_FILE = "logging.jsonl"
_DRAW_AT_MOST_EVERY = 60.0
"""Seconds between two drawings of the curves while training goes on; the last one always comes."""
_WINDOW = 20
"""Log events over which the remaining time is estimated."""


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Report a run on screen and into its folder. Only the main process does.

    Use it as a context manager around ``trainer.train()``, so that every file is closed and the curves are drawn
    whatever ends the run. It replaces the bar and the printing of transformers: set ``disable_tqdm=True`` and remove
    ``PrinterCallback``. A sink that fails (a full disk, a closed pipe) is reported once and never ends the training.

    ``run`` needs at most ``folder``, ``logger`` and ``process.rank``; ``total_steps`` overrides the trainer's
    ``max_steps``; ``logging_dir`` is where TensorBoard files go (``runs/`` in the folder); ``stream`` takes the lines
    (standard output); ``progress`` shows the bar (when standard error is a terminal).
    """

    def __init__(
        self,
        run: Any,
        *,
        total_steps: int | None = None,
        report_to: str | Sequence[str] | None = ("tensorboard",),
        logging_dir: Path | None = None,
        images: bool = True,
        progress: bool | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self.run, self.total_steps, self.images, self.stream = run, total_steps, images, stream
        self.logging_dir = logging_dir
        self.progress = sys.stderr.isatty() if progress is None else progress
        self.tensorboard = _wants_tensorboard(report_to)
        self.main = getattr(getattr(run, "process", None), "rank", 0) == 0
        self._clock: _Clock | None = None
        self._events: EventLog | None = None
        self._board: Any = None
        self._bar: Any = None
        self._eval_bar: Any = None
        self._history: Sequence[Mapping[str, Any]] = ()
        self._drawn = 0
        self._draw_next = 0.0
        self._resumed_at = 0
        self._failed: set[str] = set()

    # Events of the trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._speaks(state):
            return
        atexit.register(self.close)
        self._resumed_at = state.global_step
        self._history = state.log_history
        self._clock = _Clock(state.global_step)
        self._draw_next = time.monotonic() + _DRAW_AT_MOST_EVERY
        if self._folder and self._events is None:
            with self._sink(LOG_FILE):
                self._events = EventLog(self._folder / LOG_FILE)
                self._events.rewind(state.global_step)
        if self.progress:
            total = self.total_steps or state.max_steps
            self._bar = tqdm(
                total=total, initial=state.global_step, desc="train", unit="step", dynamic_ncols=True, file=sys.stderr
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps and args.logging_strategy == "steps":
            control.should_log = True
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        if not (self.progress and self._speaks(state)):
            return
        if self._eval_bar is None:
            try:
                total = len(eval_dataloader)
            except TypeError:  # an iterable dataset
                total = None
            self._eval_bar = tqdm(total=total, desc="eval", leave=False, dynamic_ncols=True, file=sys.stderr)
        self._eval_bar.update(1)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._close_eval_bar()

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        self._close_eval_bar()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or not self._speaks(state):
            return
        self._close_eval_bar()
        self._history = state.log_history
        step, total = state.global_step, self.total_steps or state.max_steps
        values = {key: value.item() if hasattr(value, "item") else value for key, value in logs.items()}
        facts: dict[str, Any] = {}
        if "train_runtime" not in values and self._clock:
            facts = self._clock.tick(step, total) if "loss" in values else {"elapsed_seconds": self._clock.elapsed()}
        facts["memory_gib"] = memory_gib()
        with self._sink("the log line"):
            self._print(describe(values, step=step, total=total, **facts))
        if self._folder:
            with self._sink(LOG_FILE):
                self._events = self._events or EventLog(self._folder / LOG_FILE)
                self._events.append(step, total, values, facts)
            if self.tensorboard:
                with self._sink("TensorBoard"):
                    self._log_scalars(values, step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._speaks(state) and time.monotonic() >= self._draw_next:
            self._draw()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._speaks(state):
            self.close()

    # Closing

    def close(self) -> None:
        """Close the bars and files and draw the curves; safe to call again."""
        atexit.unregister(self.close)
        self._close_eval_bar()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        board, self._board = self._board, None
        if board is not None:
            with self._sink("TensorBoard"):
                board.close()
        events, self._events = self._events, None
        if events is not None:
            events.close()
        if len(self._history) > self._drawn:
            self._draw()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Sinks

    @property
    def _folder(self) -> Path | None:
        return getattr(self.run, "folder", None)

    def _speaks(self, state: Any) -> bool:
        return self.main and state.is_world_process_zero

    @contextlib.contextmanager
    def _sink(self, name: str) -> Iterator[None]:
        """Let a sink fail without ending the training; say so the first time."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: a stream that was closed
            if name not in self._failed:
                self._failed.add(name)
                logger = getattr(self.run, "logger", None) or logging.getLogger("martlet")
                logger.warning("%s could not be written: %s. Training goes on.", name, error)

    def _print(self, line: str) -> None:
        stream = self.stream or sys.stdout
        if self._bar is None:
            print(line, file=stream, flush=True)
        else:
            self._bar.write(line, file=stream)
            stream.flush()

    def _log_scalars(self, values: Mapping[str, Any], step: int) -> None:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            folder = self.logging_dir or Path(str(self._folder)) / "runs"
            # What an interrupted run wrote beyond the step that this one resumed from is hidden.
            purge = self._resumed_at + 1 if self._resumed_at else None
            self._board = SummaryWriter(str(folder), purge_step=purge)
        for key, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(_tag(key), value, step)
        self._board.flush()

    def _draw(self) -> None:
        if not (self.images and self._folder and self._history):
            return
        started = time.monotonic()
        try:
            from .curves import draw

            draw(self._history, self._folder / "images")
        except Exception as error:  # a picture is never worth a run
            with self._sink("images/"):
                raise OSError(f"{type(error).__name__}: {error}") from error
        self._drawn = len(self._history)
        now = time.monotonic()
        self._draw_next = now + max(_DRAW_AT_MOST_EVERY, 50 * (now - started))

    def _close_eval_bar(self) -> None:
        if self._eval_bar is not None:
            self._eval_bar.close()
            self._eval_bar = None


class _Clock:
    """Elapsed time, speed since the last log event, and the time that remains."""

    def __init__(self, step: int) -> None:
        self.started = time.perf_counter()
        self.stamps: deque[tuple[float, int]] = deque([(self.started, step)], maxlen=_WINDOW + 1)

    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def tick(self, step: int, total: int) -> dict[str, float]:
        now = time.perf_counter()
        last_time, last_step = self.stamps[-1]
        first_time, first_step = self.stamps[0]
        self.stamps.append((now, step))
        facts = {"elapsed_seconds": now - self.started}
        if step > last_step:
            facts["steps_per_second"] = (step - last_step) / max(now - last_time, 1e-9)
            if total > 0:
                facts["remaining_seconds"] = max(0, total - step) * (now - first_time) / (step - first_step)
        return facts


def _tag(key: str) -> str:
    for prefix in ("eval_", "test_"):
        if key.startswith(prefix):
            return f"{prefix[:-1]}/{key.removeprefix(prefix)}"
    return f"train/{key}"


def memory_gib() -> float:
    """Return the memory of this process in GiB: the most that was reserved on its fullest device, else resident."""
    for name in ("cuda", "xpu", "npu", "mlu", "musa"):
        device = getattr(torch, name, None)
        if device is not None and device.is_available() and device.is_initialized():
            return float(max(device.max_memory_reserved(index) for index in range(device.device_count())) / 2**30)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / 2**30 if sys.platform == "darwin" else most / 2**20


def _names(report_to: str | Sequence[str] | None) -> list[str]:
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if "none" in names and len(names) > 1:
        raise UsageError(f"--report_to {' '.join(names)}: 'none' cannot be combined with others. Leave it out.")
    return [name for name in names if name != "none"]


def _wants_tensorboard(report_to: str | Sequence[str] | None) -> bool:
    names = _names(report_to)
    installed = importlib.util.find_spec("tensorboard") is not None
    if "tensorboard" in names and not installed:
        raise UsageError("--report_to tensorboard needs the package tensorboard. Run: pip install tensorboard")
    return "tensorboard" in names or ("all" in names and installed)


def other_reports(report_to: str | Sequence[str] | None) -> list[str]:
    """Return what ``TrainingArguments(report_to=...)`` is to do: all but ``tensorboard``, which ``Reporter`` writes."""
    names = _names(report_to)
    if "all" in names:
        from transformers.integrations.integration_utils import get_available_reporting_integrations

        available: list[str] = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
        names += [name for name in available if name not in names]
    return [name for name in names if name not in ("all", "tensorboard")]
