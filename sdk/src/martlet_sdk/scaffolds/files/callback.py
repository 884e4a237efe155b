# mypy: disable-error-code="no-untyped-def"
"""A callback: say when the training loss is lower than ever before."""

from martlet import Callback, hookimpl


class MyNameCallback:
    """Any event of ``transformers.TrainerCallback`` may be a method; it is called with more than it names here."""

    lowest = float("inf")

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss", self.lowest)
        if loss < self.lowest:
            self.lowest = loss
            print(f"step {state.global_step}: the lowest loss so far, {loss:.4f}")


@hookimpl
def provide_callbacks():
    yield Callback("my-name", MyNameCallback, summary="Prints each new lowest loss.")
