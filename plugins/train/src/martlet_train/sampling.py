"""Which rows make up which batch: a pure function of the seed and the epoch, so that a resumed run finds its place.

A *unit* is what counts as one in the batch size: a row, a pair of rows or, with packing, a pack of such. An epoch is
one order of all units. Batches are cut from it one after the other, so the units of an optimizer step are the same
however they are split into batch size, accumulation and processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

MEGABATCH = 50
"""Optimizer steps among which rows are sorted with ``group_by_length``."""


@dataclass
class EpochOrder:
    """Order the units of every epoch."""

    units: int
    seed: int
    shuffle: bool = True
    lengths: Sequence[int] | None = None
    """Of the units: put those of similar length side by side."""
    per_step: int = 1
    """Units in an optimizer step, the group that is kept together when ``lengths`` are given."""

    def __call__(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.units))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(self.units, generator=generator).tolist()
        return order if self.lengths is None else self._grouped(order, generator)

    def _grouped(self, order: list[int], generator: torch.Generator) -> list[int]:
        """Sort by length within megabatches, then shuffle their steps; the step with the longest row comes first."""
        lengths, per_step = self.lengths or (), self.per_step
        steps: list[list[int]] = []
        for start in range(0, len(order), per_step * MEGABATCH):
            part = sorted(order[start : start + per_step * MEGABATCH], key=lambda unit: -lengths[unit])
            steps += [part[at : at + per_step] for at in range(0, len(part), per_step)]
        rest = [steps.pop()] if steps and len(steps[-1]) < per_step else []
        steps = [steps[index] for index in torch.randperm(len(steps), generator=generator).tolist()]
        if steps:
            first = max(range(len(steps)), key=lambda at: lengths[steps[at][0]])
            steps.insert(0, steps.pop(first))
        return [unit for step in steps + rest for unit in step]


class BatchSampler(Sampler[list[int]]):
    """Yield the row numbers of one process's batches; ``-1 - row`` marks a row that must count for nothing.

    Every process gets the same number of batches. Where the last rows do not suffice for all, the ones that have none
    compute such a filler.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        *,
        packs: Sequence[Sequence[int]] | None = None,
        group: int = 1,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.order, self.batch_size, self.packs, self.drop_last = order, batch_size, packs, drop_last
        self.rank, self.world_size, self.group = rank, world_size, group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        together = self.batch_size * self.world_size
        return self.order.units // together if self.drop_last else -(-self.order.units // together)

    def __iter__(self) -> Iterator[list[int]]:
        order, together = self.order(self.epoch), self.batch_size * self.world_size
        for index in range(len(self)):
            start = index * together + self.rank * self.batch_size
            units = order[start : min(start + self.batch_size, (index + 1) * together)]
            rows = [row for unit in units for row in self._rows(unit)]
            yield rows or [-1 - row for row in self._rows(order[0])[: self.group]]

    def _rows(self, unit: int) -> Sequence[int]:
        """Return the rows of a unit: ``group`` rows that stand side by side, or those of every group in a pack."""
        groups = (unit,) if self.packs is None else self.packs[unit]
        return groups if self.group == 1 else [one * self.group + at for one in groups for at in range(self.group)]
