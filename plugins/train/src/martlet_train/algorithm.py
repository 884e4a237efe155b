"""What an algorithm brings to the training core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from martlet import Run
    from martlet.protocols import BoundTemplate
    from martlet_data.api import Prepared

    from .batch import Batch
    from .scoring import TokenScores

Measured = Mapping[str, "tuple[Tensor | float, Tensor | float]"]
"""Name -> (sum, count), added up over batches and processes before the one is divided by the other."""


@dataclass
class LossOut:
    """The loss of one batch."""

    total: Tensor
    """Sum of the weighted losses. The core divides it by ``Algorithm.count`` of the whole optimizer step, so no
    algorithm has to know how a step is split into batches and processes."""
    measure: Callable[[], Measured] | None = None
    """What to log beside the loss (``token_acc``); called only for steps that are logged, and in evaluation."""


class Algorithm(Protocol):
    """Supervised fine-tuning, a preference loss, ..."""

    def data(self, run: Run, template: BoundTemplate) -> Prepared:
        """Read and encode the rows."""

    def count(self, batch: Batch) -> int:
        """Return what the batch adds to the divisor of the loss: supervised tokens, or pairs. Read on the CPU."""

    def loss(self, forward: Callable[[Batch], TokenScores], batch: Batch) -> LossOut:
        """Run ``forward`` as often as needed and return the loss."""
