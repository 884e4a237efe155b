"""End a training run on Ctrl-C or SIGTERM at a point from which it can be continued."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from martlet import MartletError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(MartletError):
    """The user, or the machine, ended the run."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Stopped(Exception):
    """An evaluation is given up because the run is to end."""


class Interruption:
    """While entered, the first signal is noted and the second one raises ``KeyboardInterrupt``."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        print(
            f"\n{signal.Signals(number).name}: finishing this step, then saving. Once more ends at once.",
            file=sys.stderr,
            flush=True,
        )


class StopOnSignal(TrainerCallback):
    """Save and stop at the end of the step in which a signal came. Must be the last callback."""

    def __init__(self, interruption: Interruption, *, save: bool) -> None:
        self.interruption, self.save = interruption, save

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self.interruption.signal is not None:
            control.should_training_stop = True
            control.should_evaluate = False
            control.should_save = self.save
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        return self.on_step_end(args, state, control, **kwargs)


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
