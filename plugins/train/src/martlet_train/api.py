"""The training core, for other distributions. Semantic versioning holds for what is listed here.

A trainer of another distribution is one function, ``def dpo(run): return fit(run, Dpo(run))``: it says which rows it
trains on and what their loss is; ``fit`` does everything else (model, tuner, batches, steps, evaluation, checkpoints,
resuming, logs).
"""

from __future__ import annotations

from martlet.protocols import TrainResult

from .algorithm import Algorithm, LossOut
from .batch import Batch, sequence_sum
from .core import fit
from .scoring import TokenScores

__all__ = ["Algorithm", "Batch", "LossOut", "TokenScores", "TrainResult", "fit", "sequence_sum"]
