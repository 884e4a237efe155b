"""Say when the training loss is lower than ever before."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class MyNameCallback(TrainerCallback):
    """Print each new lowest loss."""

    def __init__(self) -> None:
        self.lowest = float("inf")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Compare the loss that is being logged with those before."""
        loss = (logs or {}).get("loss", self.lowest)
        if loss < self.lowest:
            self.lowest = loss
            print(f"step {state.global_step}: the lowest loss so far, {loss:.4f}")
