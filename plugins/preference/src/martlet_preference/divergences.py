"""Scores of f-DPO (arXiv 2309.16240): what keeps the model near its reference, as f'(ratio) of an answer."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

LARGEST = 40.0
"""Exponents are cut off here: a square of the result still fits float32."""


def score(log_ratio: Tensor, divergence: str, alpha: float) -> Tensor:
    """Return f'(u) for the divergence with generator f, from log u, up to a constant that cancels in a pair.

    Reverse KL, which is DPO: log u. Forward KL: 1 - 1/u. Jensen-Shannon: log(2u / (u + 1)). Alpha-divergence:
    (u^(alpha - 1) - 1) / (alpha - 1), whose limit for alpha = 1 is log u.
    """
    if divergence == "forward_kl":
        return -(-log_ratio).clamp(max=LARGEST).expm1()
    if divergence == "js_divergence":
        return math.log(2) + logsigmoid(log_ratio)
    if divergence == "alpha_divergence" and abs(alpha - 1) >= 1e-6:
        return ((alpha - 1) * log_ratio).clamp(max=LARGEST).expm1() / (alpha - 1)
    return log_ratio
