"""The training core, for other distributions. Semantic versioning holds for what is listed here, and for
the flags in ``martlet_train.args``, which are read without importing torch.

A trainer of another distribution is one function, ``def dpo(run): return fit(run, Dpo(run))``: it says which rows it
trains on and what their loss is; ``fit`` does everything else (model, reference model, tuner, batches, steps,
evaluation, checkpoints, resuming, logs).
"""

from __future__ import annotations

from martlet.protocols import TrainResult

from .algorithm import Algorithm, LossOut, Measured
from .batch import Batch, Collator, Row, sequence_sum
from .core import fit
from .head import Measure
from .losses import call_loss, check_values
from .probing import evaluating
from .scoring import Forward, TokenScores, log_probabilities

__all__ = [
    "Algorithm",
    "Batch",
    "Collator",
    "Forward",
    "LossOut",
    "Measure",
    "Measured",
    "Row",
    "TokenScores",
    "TrainResult",
    "call_loss",
    "check_values",
    "evaluating",
    "fit",
    "log_probabilities",
    "sequence_sum",
]
