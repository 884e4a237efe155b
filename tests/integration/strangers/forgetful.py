"""Change the weights by a number that grows from step to step, and is nowhere kept."""

import time

from martlet import Callback, hookimpl


class Forgetful:
    def __init__(self):
        self.times = 0

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.times += 1
        time.sleep(0.3)  # so that an interruption comes before the last step, and the log shows what was forgotten
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 1e-4 * self.times


@hookimpl
def provide_callbacks():
    yield Callback("forgetful", Forgetful)
