"""Sums and counts that become means when they are logged."""

from __future__ import annotations

import torch
from torch import Tensor

from .algorithm import Measured
from .processes import Processes


class Tally:
    """Add up (sum, count) pairs on the device, and divide once."""

    def __init__(self) -> None:
        self._pairs: dict[str, Tensor] = {}

    def add(self, measured: Measured) -> None:
        """Add one batch's pairs, without waiting for the device."""
        for name, pair in measured.items():
            device = next((value.device for value in pair if isinstance(value, Tensor)), None)
            # Sums over a whole evaluation set outgrow float32; Apple's GPUs have nothing wider.
            dtype = torch.float32 if device is not None and device.type == "mps" else torch.float64
            sums = torch.stack([torch.as_tensor(value, dtype=dtype, device=device).detach() for value in pair])
            self._pairs[name] = self._pairs[name] + sums if name in self._pairs else sums

    def take(self, processes: Processes) -> dict[str, float]:
        """Return the means over all processes, which must all ask for them, and begin anew."""
        pairs, self._pairs = self._pairs, {}
        names = processes.union(list(pairs))
        if not names:
            return {}
        none = torch.zeros_like(next(iter(pairs.values()))) if pairs else processes.zeros(2)
        sums = processes.sum(torch.stack([pairs.get(name, none) for name in names])).tolist()
        return {name: total / count for name, (total, count) in zip(names, sums, strict=True) if count}
