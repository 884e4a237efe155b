"""Wait a little in every step, so that a signal finds the run at work."""

import time

from martlet import Callback, hookimpl


class SlowSteps:
    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(0.05)


@hookimpl
def provide_callbacks():
    yield Callback("slow_steps", SlowSteps)
