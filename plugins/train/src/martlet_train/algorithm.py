"""What an algorithm brings to the training core."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from martlet import Run
    from martlet.protocols import BoundTemplate
    from martlet_data.api import Prepared

    from .batch import Batch, Collator, Row
    from .scoring import Forward

Measured = Mapping[str, "tuple[Tensor | float, Tensor | float]"]
"""Name -> (sum, count), added up over batches and processes before the one is divided by the other."""


@dataclass
class LossOut:
    """The loss of one batch."""

    total: dict[str, Tensor]
    """Sums of losses, by what divides them: ``Algorithm.count`` of the whole optimizer step, over all processes. So no
    algorithm has to know how a step is split. The loss of the step is the sum of these means."""
    metrics: Measured = field(default_factory=dict)
    """What to log beside the loss (``token_acc``); wanted only where ``Forward.logged``."""


class Algorithm(ABC):
    """Supervised fine-tuning, a preference loss, ..."""

    reference: ClassVar[bool] = False
    """It calls ``forward.reference``."""

    @abstractmethod
    def data(self, run: Run, template: BoundTemplate) -> Prepared:
        """Read and encode the rows; those of a ``Prepared.group`` stay together in one batch."""

    @abstractmethod
    def count(self, batch: Batch) -> dict[str, int]:
        """Return what the batch adds to each divisor: ``{"tokens": 812}``. Read on the CPU."""

    @abstractmethod
    def loss(self, forward: Forward, batch: Batch) -> LossOut:
        """Run ``forward`` as often as needed and return the loss."""

    def begin(self, forward: Forward, batches: Iterable[Batch]) -> None:  # noqa: B027
        """See this process's batches of an optimizer step, or of an evaluation, before the first loss of them.

        Every process sees as many, so that each may run a model whose weights all of them hold together; those that
        are ``filler`` count for nothing.
        """

    @staticmethod
    def collate(rows: Sequence[Row], numbers: Sequence[int], collator: Collator) -> Batch:
        """Make a batch of rows, ``group`` by ``group``; ``numbers`` are their places in the dataset. Runs anywhere."""
        return collator(rows, numbers)
