"""What the processes of a run tell one another: sums, names, bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """The processes of a run; every method is called by all of them. With one process nothing is sent."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.count: int = accelerator.num_processes

    def zeros(self, count: int) -> Tensor:
        """Return (count,) f64 zeros on this process's device."""
        return torch.zeros(count, dtype=torch.float64, device=self.accelerator.device)

    def sum(self, values: Tensor) -> Tensor:
        """Add up tensors of one shape."""
        if self.count == 1:
            return values
        total: Tensor = self.accelerator.reduce(values, reduction="sum")
        return total

    def union(self, names: list[str]) -> list[str]:
        """Return every process's names: in one order for all, that of the first process."""
        if self.count == 1:
            return names
        texts = self.gather(json.dumps(names).encode())
        return list(dict.fromkeys(name for text in texts for name in json.loads(text)))

    def gather(self, data: bytes) -> list[bytes]:
        """Return every process's bytes, by rank."""
        if self.count == 1:
            return [data]
        device = self.accelerator.device
        mine = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
        sizes = self.accelerator.gather(torch.tensor([len(data)], device=device)).tolist()
        padded = self.accelerator.pad_across_processes(mine)
        rows = self.accelerator.gather(padded).view(self.count, -1).cpu()
        return [row[:size].numpy().tobytes() for row, size in zip(rows, sizes, strict=True)]
