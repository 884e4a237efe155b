"""A plugin whose callbacks derive from transformers' own class, as many do."""

from __future__ import annotations

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from martlet import Callback, hookimpl


class Clumsy(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise IndexError("no such bird")


class StopAtFive(TrainerCallback, ExportableState):
    """Stop when it has seen five steps, in whatever run."""

    def __init__(self):
        self.seen = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.seen += 1
        control.should_training_stop = self.seen == 5

    def state(self):
        return {"args": {}, "attributes": vars(self)}


@hookimpl
def provide_callbacks():
    yield Callback("clumsy", Clumsy)
    yield Callback("stop_at_five", StopAtFive)
