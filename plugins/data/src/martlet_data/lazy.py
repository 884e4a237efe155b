"""``--lazy_tokenize true``: rows are read and checked before training, and become tokens when they are fetched.

A row that its template refuses is found only then. The next row that can be used, in the order of the dataset, takes
its place; which one that is depends on the rows alone, so a run can be repeated and resumed. ``finish`` counts what was
found in the ledger.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from martlet.errors import DataError, UsageError

from .args import DataArguments
from .cached_dataset import CachedDataset, comparable
from .encoded import Arrays, Ints, Sample, Store
from .facts import Unknown, digest_of, facts_of
from .ledger import Dropped, RowId
from .modes import Mode, strategy_of
from .prepare import NONE_LEFT, Prepared, used_by
from .selection import Part, bad_row, check, ordered, parts_of
from .work import Chunk, Work, work_on
from .workers import absorbed

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run

REFUSED = -1
FOUND = "lazy_rows.npy"
"""Where a checkpoint says what is known of the rows: (2, N) tokens and supervised ones, as ``LazyDataset.found``."""


@dataclass
class Rows:
    """The rows of one dataset that may be used, each by its number in the table and among those made of it."""

    part: Part
    work: Work
    lines: list[int]
    first: int
    """Place of its first row among those of all datasets."""
    numbers: Ints = field(init=False)
    which: Ints = field(init=False)

    def __post_init__(self) -> None:
        used = self.part.used
        self.numbers = np.repeat(self.part.needed, used)
        self.which = np.arange(int(used.sum())) - np.repeat(np.cumsum(used) - used, used)

    def encode(self, row: int) -> Chunk:
        return self.work.one(int(self.numbers[row]), int(self.which[row]))

    def origin(self, row: int) -> RowId:
        opened = self.part.opened
        return RowId(opened.label, opened.files[int(opened.table.numbers(self.numbers[row]))], self.lines[row])

    def dropped(self, row: int, chunk: Chunk, times: int = 1) -> Dropped:
        """Say what is wrong with a row that did not become a sample."""
        drop = chunk.drops[0]
        return Dropped(self.origin(row), drop.reason, " ".join(drop.detail.split())[:300], times, drop.length)


class LazyDataset(Sequence[Sample]):
    """Samples in the order they are to be used, encoded when they are fetched. Data workers share what they find.

    group: samples of each row, side by side.
    """

    def __init__(self, run: Run, rows: Sequence[Rows], order: Ints, fingerprint: str, group: int) -> None:
        data = run.config[DataArguments]
        self.fingerprint, self.group, self._rows, self._order = fingerprint, group, list(rows), order
        self._last: tuple[int, Arrays] | None = None
        self._strict, self._max_dropped = data.strict, data.max_dropped
        self._ends = list(accumulate(len(one.numbers) for one in rows))
        context, count = multiprocessing.get_context(), self._ends[-1] if rows else 0
        self._lengths, self._supervised = context.RawArray("i", count), context.RawArray("i", count)
        """Tokens of the rows fetched so far; -1 marks one that was refused."""

    def __len__(self) -> int:
        return len(self._order) * self.group

    def _place(self, number: int) -> tuple[int, Rows, int]:
        """Return a row's place, its dataset, and its number there."""
        place = int(self._order[number])
        dataset = bisect_right(self._ends, place)
        return place, self._rows[dataset], place - (self._ends[dataset - 1] if dataset else 0)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Return a sample, or that of the next row that can be used. ``DataError`` when too many rows cannot."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        number, side = divmod(index % len(self), self.group)
        for step in range(len(self._order)):
            place, rows, row = self._place((number + step) % len(self._order))
            if self._last is not None and self._last[0] == place:
                return self._last[1].sample(side)
            if self._lengths[place] == REFUSED:
                continue
            block = (chunk := rows.encode(row)).block
            if block is not None and block.lengths:
                self._lengths[place], self._supervised[place] = sum(block.lengths), sum(block.counts)
                block.files = [0] * self.group
                store = Store([rows.part.sources[0]])
                store.append(block)
                self._last = place, store.close()
                return self._last[1].sample(side)
            self._refuse(rows, row, chunk, place)
        raise DataError("None of the rows can be used; without --lazy_tokenize the ledger says why.")

    def origin(self, index: int) -> RowId:
        """Say which row of which file a sample is made from, unless that is refused."""
        _, rows, row = self._place(index // self.group)
        return rows.origin(row)

    def _refuse(self, rows: Rows, row: int, chunk: Chunk, place: int) -> None:
        self._lengths[place] = REFUSED
        drop = rows.dropped(row, chunk)
        if self._strict:
            raise bad_row(drop.id, drop.reason, drop.detail)
        lengths = np.frombuffer(self._lengths, np.int32)[rows.first : rows.first + len(rows.numbers)]
        lost, total = int((lengths == REFUSED).sum()), len(lengths)
        if lost > self._max_dropped * total:
            raise DataError(
                f"{rows.part.opened.label}: {lost:,} of {total:,} rows cannot be used so far, more than --max_dropped "
                f"{self._max_dropped:g} allows; the last is {drop.id} ({drop.reason}: {drop.detail}). Mend the rows, "
                "or raise --max_dropped."
            )

    def settle(self, use: str) -> list[Dropped]:
        """Count what was found since the start, in the ledgers of the datasets; return the rows refused."""
        times = np.bincount(self._order, minlength=len(self._lengths))
        lengths, supervised = (np.frombuffer(found, np.int32) for found in (self._lengths, self._supervised))
        dropped = []
        for rows in self._rows:
            here = slice(rows.first, rows.first + len(rows.numbers))
            ledger, often = rows.part.ledger, times[here]
            kept = np.maximum(lengths[here], 0)
            ledger.tokens += int((kept * often).sum())
            ledger.supervised_tokens += int((supervised[here] * often).sum())
            for row in np.flatnonzero((lengths[here] == REFUSED) & (often > 0)).tolist():
                drop = rows.dropped(row, rows.encode(row), int(often[row]))
                ledger.dropped[drop.reason] += drop.times
                setattr(ledger, use, getattr(ledger, use) - drop.times)
                dropped.append(drop)
        return dropped

    @property
    def found(self) -> npt.NDArray[np.int32]:
        """(2, N) tokens of each row that was fetched so far, and its supervised ones. A copy; can be set."""
        return np.stack([np.frombuffer(one, np.int32) for one in (self._lengths, self._supervised)])

    @found.setter
    def found(self, values: npt.NDArray[np.int32]) -> None:
        for one, row in zip((self._lengths, self._supervised), values, strict=True):
            np.frombuffer(one, np.int32)[:] = row

    def learn(self, values: npt.NDArray[np.int32]) -> None:
        """Take up what another process has found, in the form of ``found``; data workers may find more meanwhile."""
        known = values[0] != 0
        for one, row in zip((self._lengths, self._supervised), values, strict=True):
            np.frombuffer(one, np.int32)[known] = row[known]

    @property
    def fetched(self) -> tuple[int, int]:
        """Rows that were encoded, or refused, so far; and how many there are."""
        return int(np.count_nonzero(self.found[0])), len(self._order)


def prepare_lazy(run: Run, template: BoundTemplate, mode: Mode) -> Prepared:
    """Read and check the rows of --dataset and --val_dataset, and leave their encoding to when they are fetched.

    Rows with a fault that shows without tokens are dropped and counted now, as ``prepare`` does it.
    """
    began = time.perf_counter()
    if strategy_of(run) == "split":
        raise UsageError("--lazy_tokenize true counts rows before they are encoded, and split makes several of one.")
    parts = parts_of(run)
    if cached := next((part.opened.label for part in parts if isinstance(part.opened, CachedDataset)), None):
        raise UsageError(
            f"--lazy_tokenize true encodes rows while training, and {cached} is encoded already. Drop one."
        )
    works = [work_on(run, part.opened.table, part.opened.converter, template, mode) for part in parts]
    lines, content = _read(run, parts, works)
    ledger = check(run, parts, None)
    if not ledger.totals()["train"]:
        raise DataError(NONE_LEFT)
    try:
        facts = [mode.name, comparable(facts_of(run, template)), template.max_length, strategy_of(run)]
        content.update(digest_of(facts).encode())
    except Unknown as error:
        run.warn(f"--lazy_tokenize: a resumed run cannot tell whether rows are encoded as before, because {error}.")
    read, group = list(zip(works, lines, strict=True)), mode.group
    train, evaluation = (_lazy(run, parts, read, use, content.hexdigest(), group) for use in ("train", "eval"))
    run.logger.info("Read %s rows in %.1f s", f"{ledger.totals()['selected']:,}", time.perf_counter() - began)

    def finish() -> None:
        """Count what was found since, write the ledger, and say how much was encoded."""
        ledger.rows += [*train.settle("train"), *evaluation.settle("eval")]
        run.note("data", {"fingerprint": content.hexdigest(), **ledger.as_dict()})
        if run.process.rank == 0:
            if run.folder is not None:
                ledger.write(run.folder)
            run.logger.info("Datasets\n%s", ledger.table())
            rows = zip(train.fetched, evaluation.fetched, strict=True)
            run.logger.info("%s of %s rows were encoded while training", *(f"{sum(both):,}" for both in rows))

    def share(gather: Callable[[bytes], list[bytes]]) -> None:
        """Let every process know of each row what any of them found."""
        for known in (train, evaluation):
            for other in gather(known.found.tobytes()) if len(known) else ():
                known.learn(np.frombuffer(other, np.int32).reshape(2, -1))

    def save(folder: Path) -> None:
        np.save(folder / FOUND, np.hstack([train.found, evaluation.found]), allow_pickle=False)

    def restore(folder: Path) -> None:
        """Know again which rows were refused before: they are part of this run's ledger."""
        if (folder / FOUND).is_file():
            known = np.load(folder / FOUND, allow_pickle=False)
            train.found, evaluation.found = np.hsplit(known, [train.found.shape[1]])

    run.note("data", {"fingerprint": content.hexdigest(), **ledger.as_dict()})
    rows = evaluation if len(evaluation) else None
    return Prepared(train, rows, ledger, content.hexdigest(), group, finish, save, restore, share)


def _read(run: Run, parts: Sequence[Part], works: Sequence[Work]) -> tuple[list[list[int]], Any]:
    """Convert all rows that are needed; return the line of each that is used, and the digest of their content."""
    readers = [replace(work, template=None, keep_columns=True) for work in works]
    lines: list[list[int]] = [[] for _ in parts]
    content = hashlib.sha256()
    for number, chunk, _ in absorbed(run, readers, parts):
        lines[number] += chunk.lines
        for row in chunk.rows:
            content.update(json.dumps([number, row], default=repr).encode())
    return lines, content


def _lazy(
    run: Run, parts: Sequence[Part], read: Sequence[tuple[Work, list[int]]], use: str, content: str, group: int
) -> LazyDataset:
    """read: how rows of each dataset are encoded, and their lines."""
    mine = used_by(parts, read, use)
    rows = [Rows(part, work, lines, first) for part, (work, lines), first in mine]
    order = ordered(run, [(part, first) for part, _, first in mine], use)
    fingerprint = hashlib.sha256(content.encode() + np.ascontiguousarray(order).tobytes()).hexdigest()
    return LazyDataset(run, rows, order, fingerprint, group)
