"""Say when the loss is lower than ever before."""

from transformers import TrainerCallback

from martlet import Callback, hookimpl


class Lowest(TrainerCallback):
    lowest = float("inf")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and logs.get("loss", self.lowest) < self.lowest:
            self.lowest = logs["loss"]
            print(f"lowest at step {state.global_step}")


@hookimpl
def provide_callbacks():
    yield Callback("lowest", Lowest)
