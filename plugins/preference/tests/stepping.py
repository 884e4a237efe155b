"""One optimizer step of an algorithm, as the training core divides and adds up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

from martlet_train.api import Algorithm, Batch


def one_step(
    algorithm: Algorithm, forward: Any, batches: list[Batch], parameters: Iterable[torch.nn.Parameter]
) -> tuple[torch.Tensor, torch.Tensor, dict[str, tuple[float, float]]]:
    """Return the loss, its gradient in one row, and of each metric the sum and what divides it."""
    counts: dict[str, int] = defaultdict(int)
    for batch in batches:
        for name, count in algorithm.count(batch).items():
            counts[name] += count
    loss, sums = torch.zeros(()), {}
    for batch in batches:
        out = algorithm.loss(forward, batch)
        loss = loss + sum(out.total[name] / counts[name] for name in out.total)
        for name, (value, number) in out.metrics.items():
            have = sums.get(name, (0.0, 0.0))
            sums[name] = (have[0] + float(value), have[1] + float(number))
    gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
    return loss.detach(), flat, sums
