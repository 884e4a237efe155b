"""Which share of the rows has been trained on: ``epoch`` in logs, curves and checkpoints."""

from __future__ import annotations

import math
from typing import Any, cast

from transformers import TrainerCallback

from .loading import Loader
from .sampling import BatchSampler


class CountUnits(TrainerCallback):
    """Let the epoch be the share of the units seen; upstream counts batches, which depends on how a step is split."""

    def __init__(self, loader: Loader, per_step: int) -> None:
        sampler = cast(BatchSampler, loader.batch_sampler)
        together = len(sampler) * sampler.batch_size * sampler.world_size
        self.units = min(together, sampler.order.units)
        self.per_step = per_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps = math.ceil(self.units / self.per_step)
        whole, more = divmod(state.global_step, steps)
        state.epoch = float(whole + more * self.per_step / self.units)
