"""End a training run on Ctrl-C or SIGTERM at a point from which it can be continued."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from martlet import MartletError, Process

from .checkpoint import flags_to_continue

if TYPE_CHECKING:
    from .trainer import CoreTrainer

log = logging.getLogger("martlet")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE = 1.0
"""Seconds in which one of several processes takes two signals for one: its own, and one passed on by a launcher."""


class Interrupted(MartletError):
    """The user, or the machine, ended the run."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Stopped(Exception):
    """An evaluation is given up because the run is to end."""


class Interruption:
    """While entered, the first signal is noted and the second one raises ``KeyboardInterrupt``.

    A signal may reach several processes at different steps, or one alone. So what one has noted counts once all have
    told one another (``votes``, ``count``), which they do at the same place.
    """

    def __init__(self, process: Process | None = None) -> None:
        self.process = process or Process()
        self.signal: int | None = None
        """What the run is to stop for; the same for all processes."""
        self.owes_evaluation = False
        """An evaluation of this step was put off, and is made up for when the run continues."""
        self._noted, self._when = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def votes(self) -> list[float]:
        """Return what this process has noted: 1 for one of ``SIGNALS``, for them to be added up over all processes."""
        return [float(self._noted == number) for number in SIGNALS]

    def count(self, votes: Sequence[float]) -> None:
        """Take up what any process has noted."""
        for number, count in zip(SIGNALS, votes, strict=True):
            if count:
                if self.signal is None and not self._noted:
                    self._say(number)
                self.signal = number

    def _note(self, number: int, frame: FrameType | None) -> None:
        several, now = self.process.world_size > 1, time.monotonic()
        if self._noted:
            if several and now - self._when < ONE:
                return
            raise KeyboardInterrupt
        self._noted, self._when = number, now
        if not several:
            self.signal = number
        self._say(number)

    def _say(self, number: int) -> None:
        if self.process.rank == 0:
            name = signal.Signals(number).name
            print(f"\n{name}: finishing this step, then saving. Once more ends at once.", file=sys.stderr, flush=True)


class StopOnSignal(TrainerCallback):
    """Save and stop at the end of the step in which a signal came. Must be the last callback."""

    def __init__(self, interruption: Interruption, *, save: bool, epochs: bool = True) -> None:
        """``epochs``: the epoch is a whole number at its end, and only there."""
        self.interruption, self.save, self.epochs = interruption, save, epochs

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self.interruption.signal is not None:
            epoch = state.epoch or 0.0
            over = self.epochs and float(epoch).is_integer() and epoch >= args.eval_delay
            of_epoch = args.eval_strategy == "epoch" and over
            self.interruption.owes_evaluation = control.should_evaluate or of_epoch
            self._stop(control)
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self.interruption.signal is not None:
            self._stop(control)
        return control

    def _stop(self, control: TrainerControl) -> None:
        control.should_training_stop = True
        control.should_evaluate = False
        control.should_save = self.save


class StopAfterEpochs(TrainerCallback):
    """Stop after ``--max_epochs``, evaluating and saving as the strategies allow."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if round(state.epoch or 0, 6) >= self.epochs:
            control.should_training_stop = True
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = args.save_strategy != "no"
        return control


def raise_if_interrupted(trainer: CoreTrainer) -> None:
    """Say how to continue, if a signal ended the run."""
    number, checkpoint, state = trainer.job.interruption.signal, trainer.job.checkpoints.last, trainer.state
    if number is None:
        return
    where = f"Stopped by {signal.Signals(number).name} at step {state.global_step} of {state.max_steps}. "
    if checkpoint is None:
        raise Interrupted(where + "No checkpoint was written (--save_strategy no).", number)
    raise Interrupted(where + _how_to_continue(trainer, checkpoint), number)


def tell_last(trainer: CoreTrainer) -> None:
    """Say what is left of a run that a second signal ended, wherever it was."""
    checkpoint, state = trainer.job.checkpoints.last, trainer.state
    left = _how_to_continue(trainer, checkpoint) if checkpoint else "It has no checkpoint yet."
    if trainer.is_world_process_zero():
        log.warning("Ended at once, at step %s of %s. %s", state.global_step, state.max_steps, left)


def _how_to_continue(trainer: CoreTrainer, checkpoint: Path) -> str:
    more = flags_to_continue(checkpoint, only_model=trainer.args.save_only_model)
    return f"To continue, add {more} to the same command."
