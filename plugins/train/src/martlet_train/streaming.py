"""Batches of a stream: the same for any number of data workers, equally many for every process, and resumable.

A *unit* is a row, a pair of rows or a pack, as in ``sampling``. The units of a pass over the data are put into groups,
one for each batch of all processes, and a process takes its share of each. Every process reads and encodes the whole
stream, so none has to ask another whether it has a row left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import TrainerCallback

from martlet import CheckpointError, UsageError
from martlet_data.api import Encoder, Outcome, Place, SampleStream, Task, Window, pack

from .batch import Batch, Row
from .checkpoint_index import write_text
from .loading import WorkerStart, as_it_is, unsupervised

FILE = "stream.json"
"""Where a checkpoint says how far the stream was read."""
ORDER = 5
"""Purpose of the random numbers that order a window's units, beside those of martlet-data."""
PACKS = 50
"""Packs that a window has tokens for at least, so that the last, half empty ones do not count."""


@dataclass(frozen=True)
class Layout:
    """How the units of a stream become batches."""

    batch_size: int
    accumulation: int = 1
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False
    group: int = 1
    """Encoded rows that make one unit and stay together: 2 for a pair."""
    capacity: int | None = None
    """Tokens in a pack; None to leave rows single."""
    seed: int = 0
    reshuffle: bool = True
    """Another order in every pass."""
    passes: int | None = None

    @property
    def together(self) -> int:
        """Units of a batch of all processes."""
        return self.batch_size * self.world_size


class Unit(NamedTuple):
    """Rows of a window that stay together."""

    window: Window
    number: int
    rows: list[int]


class Encoding(Dataset["Outcome"]):
    """Encode rows where they are fetched: in a data worker."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __getitem__(self, task: Task) -> Outcome:
        return self.encoder(task)


class _Waiting(Sampler["Task"]):
    """The tasks of a pass, in order."""

    tasks: Iterable[Task] = ()

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


class StreamLoader:
    """Iterating yields the batches of a pass, the next time those of the next one. Has no length."""

    def __init__(
        self,
        stream: SampleStream,
        layout: Layout,
        collate: Callable[[Sequence[Row], Sequence[int]], Batch],
        *,
        workers: int = 0,
        prefetch: int | None = None,
        pin_memory: bool = False,
        persistent: bool = False,
        worker_init: Callable[[int], None] | None = None,
    ) -> None:
        longest = (stream.max_length or 0) * layout.group
        if layout.group > 1 and layout.capacity is not None and longest > layout.capacity:
            raise UsageError(
                f"--packing true with --streaming true: the {layout.group} conversations of a row stay in one pack, so "
                f"--max_length ({stream.max_length}) may be {layout.capacity // layout.group} at most, or "
                f"--packing_length ({layout.capacity}) {longest} at least."
            )
        self.stream, self.layout, self.collate = stream, layout, collate
        self.dataset = Encoding(stream.encoder)
        self.pin_memory = pin_memory and torch.accelerator.is_available()
        self.passes = 0
        """Passes that are over."""
        self._begin, self._done = Place(), 0
        self._expected = ""
        self._last: tuple[Window, int] | None = None
        self._waiting = _Waiting()
        window = -(-stream.chunks // max(workers, 1))  # so that a window is ready when the one before it ends
        self._encoded = DataLoader(
            self.dataset,
            batch_size=None,
            sampler=self._waiting,
            collate_fn=as_it_is,
            num_workers=workers,
            prefetch_factor=max(prefetch or 2, window) if workers else None,
            persistent_workers=persistent and workers > 0,
            worker_init_fn=WorkerStart(worker_init) if workers else None,
            generator=torch.Generator(),  # its own, as in ``loading``
        )

    def __iter__(self) -> Iterator[Batch]:
        count = 0
        while not count and self.passes != self.layout.passes:  # of a resumed pass there may be nothing left
            group: list[Unit] = []
            for group in self._groups():
                self._last = (group[-1].window, group[-1].number + 1)
                count += 1
                rows = _rows(self._share(group))
                yield self._batch(rows) if rows else self._filler(group)
            for _ in range(-count % self.layout.accumulation):  # the loop takes whole steps alone
                yield self._filler(group)
            self.passes += 1
            self._begin, self._done = self.stream.next_pass(self.passes), 0

    def _groups(self) -> Iterator[list[Unit]]:
        units = self._units()
        while group := list(islice(units, self.layout.together)):
            if len(group) == self.layout.together or not self.layout.drop_last:
                yield group

    def _share(self, group: list[Unit]) -> list[Unit]:
        start = self.layout.rank * self.layout.batch_size
        return group[start : start + self.layout.batch_size]

    def _units(self) -> Iterator[Unit]:
        skip = self._done
        for window in self.stream.windows(self._encode, self._begin, PACKS * (self.layout.capacity or 0)):
            if self._expected and self._expected != window.rows.fingerprint:
                raise CheckpointError(
                    "The rows at the place where the checkpoint was written are other ones now, or are encoded "
                    "otherwise (files, template, tokenizer, --max_length, ...), so the place in the data is lost. Use "
                    "the same flags and files, or --ignore_data_skip true to begin the stream anew."
                )
            self._expected = ""
            for number, rows in enumerate(self._arranged(window)):
                if number >= skip:
                    yield Unit(window, number, rows)
            skip = 0

    def _arranged(self, window: Window) -> list[list[int]]:
        """Return the units of a window in the order in which they are trained on: a function of the place alone."""
        capacity, group = self.layout.capacity, self.layout.group
        lengths = window.rows.lengths.reshape(-1, group).sum(axis=1)
        together = [[one] for one in range(len(lengths))]
        if capacity is not None:
            together = [found.tolist() for found in pack(lengths, capacity)]
        units = [[one * group + at for one in ones for at in range(group)] for ones in together]
        if not self.stream.shuffle:
            return units
        epoch = window.place.epoch if self.layout.reshuffle else 0
        order = np.random.default_rng([self.layout.seed, ORDER, epoch, window.place.window]).permutation(len(units))
        return [units[number] for number in order]

    def _encode(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        self._waiting.tasks = tasks
        return iter(self._encoded)

    def _batch(self, rows: list[Row]) -> Batch:
        batch = self.collate(rows, ())
        return batch.pin_memory() if self.pin_memory else batch

    def _filler(self, group: list[Unit]) -> Batch:
        """Return a batch that is computed and counts for nothing."""
        batch = self._batch([unsupervised(row) for row in _rows(group[:1])[: self.layout.group]])
        batch.filler = True
        return batch

    # Checkpoints

    def facts(self) -> dict[str, Any]:
        """Return what ``resuming.SAME`` compares."""
        one = self.layout
        return {
            "rows": self.stream.fingerprint,
            "order": {"seed": one.seed, "reshuffle": one.reshuffle, "capacity": one.capacity, "last": one.drop_last},
            "units_per_step": one.together * one.accumulation,
        }

    def save(self, folder: Path) -> None:
        """Write the place behind the last batch into a checkpoint, and bring the ledger of the run up to date."""
        place, done, rows = self._begin, self._done, self._expected
        if self._last is not None:
            window, done = self._last
            place, rows = window.place, window.rows.fingerprint
        text = json.dumps({"place": asdict(place), "units": done, "rows": rows}, indent=1)
        write_text(folder / FILE, text + "\n")
        self.stream.save(folder, place)

    def restore(self, folder: Path) -> None:
        """Go on behind the last batch before a checkpoint."""
        try:
            found = json.loads((folder / FILE).read_text(encoding="utf-8"))
            self._begin, self._done, self._expected = Place(**found["place"]), found["units"], found["rows"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{folder / FILE} cannot be read ({error}), so the place in the stream is lost. Choose another "
                "checkpoint, or begin the stream anew with --ignore_data_skip true."
            ) from error
        self.passes = self._begin.epoch
        self.stream.restore(folder, self._begin)


def _rows(units: Iterable[Unit]) -> list[Row]:
    return [unit.window.rows[row] for unit in units for row in unit.rows]


class CountPasses(TrainerCallback):  # type: ignore[misc]
    """Let the epoch be the number of passes that are over: the length of a stream is not known."""

    def __init__(self, loader: StreamLoader) -> None:
        self.loader = loader

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.epoch = float(self.loader.passes)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.epoch = float(self.loader.passes)
