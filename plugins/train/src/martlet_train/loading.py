"""Data loaders whose batches do not depend on how many workers prepare them, and that leave the random state alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from martlet import MartletError

from .batch import IGNORED, Batch, Row
from .sampling import BatchSampler


@dataclass
class Unsupervised:
    """A row that is computed and counts for nothing: it fills the turn of a process that has no row left."""

    input_ids: Any
    labels: list[int]
    token_weights: None
    extra: dict[str, Any]


class Batches(Dataset[Batch]):
    """Rows by lists of their numbers, as ``BatchSampler`` yields them, collated where they are read."""

    def __init__(self, rows: Sequence[Row], collate: Callable[[list[Row], list[int]], Batch]) -> None:
        self.rows, self.collate = rows, collate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> Batch | MartletError:
        """Return a batch, or the error that ends the run: raised in a data worker, it would lose its words."""
        try:
            batch = self.collate([self._row(number) for number in numbers], numbers)
            batch.filler = numbers[0] < 0
            return batch
        except MartletError as error:
            return error

    def _row(self, number: int) -> Row:
        if number >= 0:
            return self.rows[number]
        return unsupervised(self.rows[-1 - number])


def unsupervised(row: Row) -> Unsupervised:
    """Return a row that counts for nothing, as long as ``row``."""
    return Unsupervised(row.input_ids, [IGNORED] * len(row.input_ids), None, row.extra)


class Loader(DataLoader[Batch]):
    """A data loader that hands the epoch to its batch sampler, and raises what went wrong where rows are fetched."""

    def __iter__(self) -> Any:
        return map(_unless_error, super().__iter__())

    def set_epoch(self, epoch: int) -> None:
        sampler = self.batch_sampler
        if isinstance(sampler, BatchSampler):
            sampler.set_epoch(epoch)


@dataclass(frozen=True)
class WorkerStart:
    """``worker_init_fn``: leave Ctrl-C and SIGTERM to the main process, then tell the plugins.

    A terminal, ``timeout`` and batch systems signal all processes of a job at once; the main process still needs its
    workers to finish the step.
    """

    then: Callable[[int], None] | None = None

    def __call__(self, worker_id: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if hasattr(signal, "sigwaitinfo"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_obey_parent_alone, daemon=True).start()
        if self.then:
            self.then(worker_id)


def _obey_parent_alone() -> None:
    """End this process when its parent terminates it; ignore SIGTERM from anyone else."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(128 + signal.SIGTERM)


def make_loader(
    batches: Batches,
    sampler: BatchSampler,
    *,
    workers: int = 0,
    prefetch: int | None = None,
    pin_memory: bool = False,
    persistent: bool = False,
    worker_init: Callable[[int], None] | None = None,
) -> Loader:
    """Return a loader over ``batches`` in the order of ``sampler``."""
    return Loader(
        batches,
        batch_sampler=sampler,
        collate_fn=as_it_is,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=persistent and workers > 0,
        pin_memory=pin_memory and torch.accelerator.is_available(),
        worker_init_fn=WorkerStart(worker_init) if workers else None,
        # Its own generator: the seed that a loader draws for its workers would otherwise come from the global one.
        generator=torch.Generator(),
    )


def _unless_error(fetched: Any) -> Any:
    if isinstance(fetched, MartletError):
        raise fetched
    return fetched


def as_it_is(fetched: Any) -> Any:
    """Collate nothing: what was fetched is whole."""
    return fetched
