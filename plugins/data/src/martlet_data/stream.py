"""Datasets as a stream: rows are read, converted and encoded as they are needed, and only a window of them is held.

A pass over the data is cut into *windows*: runs of raw rows in the order of the stream, each encoded, shuffled and
packed by itself. A window depends on its place, never on what was done before it. So a run continues exactly when it
reads the window anew in which it was stopped: a checkpoint holds the place and the counts, and no row.
"""

from __future__ import annotations

import hashlib
import json
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.errors import DataError, MartletError

from .args import DataArguments
from .dropping import DropLog
from .encoded import Block, EncodedDataset, Sample, Store
from .ledger import DatasetLedger, Dropped, Ledger, RowId, throughput
from .modes import Mode
from .opening import OpenedStream, open_stream
from .prepare import Prepared, encode, samples
from .raw_rows import Mixture, RawRows
from .rows import Held, Row
from .selection import bad_row, judge, parts_of, reasons, see, warn_about_columns
from .work import Chunk, Drop, Work, work_on

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run

CHUNK = 64
"""Raw rows that are encoded together, at most."""
UNSHUFFLED = 512
"""Raw rows of a window where nothing is shuffled."""
ENOUGH = 100
"""Rows of a dataset after which --max_dropped is applied; at its end it is applied in any case."""

Task = dict[int, list[Row]]
"""Raw rows to encode, by the number of their dataset."""
Outcome = dict[int, Chunk] | MartletError
Execute = Callable[[Iterable[Task]], Iterator[Outcome]]
"""Run an ``Encoder`` over tasks, anywhere, and yield what it returns in the order of the tasks."""


@dataclass(frozen=True)
class Encoder:
    """Callable that encodes a task. Pickles. An error that ends the run is returned, so that it keeps its words."""

    works: list[Work]

    def __call__(self, task: Task) -> Outcome:
        try:
            return {
                number: replace(self.works[number], table=Held(rows))(range(len(rows))) for number, rows in task.items()
            }
        except MartletError as error:
            return error


@dataclass
class Source:
    """One dataset of a stream, and what became of its rows so far."""

    opened: OpenedStream
    ledger: DatasetLedger
    first_file: int
    """Number of its first file among those of all datasets."""
    drops: list[Dropped] = field(default_factory=list)
    """The first row that was dropped for each reason."""


@dataclass
class Place:
    """Where a window begins, with the counts up to there. JSON, as ``asdict`` gives it."""

    epoch: int = 0
    window: int = 0
    raw: dict[str, Any] | None = None
    ledger: list[dict[str, Any]] | None = None
    dropped: int = 0
    """Bytes of ``dropped.jsonl``."""


@dataclass
class Window:
    """Some rows of the stream, encoded, in the order of the stream; the samples of a row side by side."""

    place: Place
    rows: EncodedDataset


@dataclass
class _Ticket:
    """What is kept of a task here while it is encoded elsewhere."""

    origins: dict[int, list[tuple[int, int, int]]]
    """Dataset -> (which of the task's rows, file, round) of each of its rows."""
    behind: dict[str, Any]
    """Where the stream goes on behind it."""
    size: int


class SampleStream:
    """The training rows of ``--dataset``, pass by pass. ``ledger`` counts the rows of the first pass."""

    def __init__(
        self, run: Run, template: BoundTemplate, opened: Sequence[OpenedStream], evaluation: Ledger, mode: Mode
    ) -> None:
        data = run.config[DataArguments]
        self.run, self.data, self.max_length = run, data, template.max_length
        self.mode, self.group = mode.name, mode.group
        """What rows are encoded for, and the samples of each, which stand side by side in a window."""
        self.shuffle = data.dataset_shuffle
        firsts = np.cumsum([0, *(len(one.files) for one in opened)]).tolist()
        self.sources = [_source(one, first) for one, first in zip(opened, firsts, strict=False)]
        self.encoder = Encoder([work_on(run, Held([]), one.converter, template, mode) for one in opened])
        self.ledger = Ledger([*(one.ledger for one in self.sources), *evaluation.datasets], list(evaluation.rows))
        self.log = DropLog(run.folder if run.process.rank == 0 else None)
        for drop in evaluation.rows:
            self.log.add(drop)
        self._files = [(one.label, file) for one in opened for file in one.files]
        self._mixture = Mixture(data.interleave_prob, data.stopping_strategy, data.data_seed)
        self._began, self._rows, self._tokens = 0.0, 0, 0
        self.sample = self._first_sample()
        """To be looked at; None where the first rows cannot be used."""

    @property
    def window_rows(self) -> int:
        """Raw rows of a window; the last chunk may make it a little longer."""
        return self.data.shuffle_buffer_size if self.shuffle else UNSHUFFLED

    @property
    def chunks(self) -> int:
        """Chunks of a window."""
        return -(-self.window_rows // CHUNK)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what a place in the stream depends on, beside the rows themselves: files' sizes, counts, flags."""
        names = ("columns", "interleave_prob", "stopping_strategy", "dataset_shuffle", "shuffle_buffer_size")
        datasets = [[one.opened.count, *map(_size, one.opened.files)] for one in self.sources]
        facts = json.dumps([datasets, self.mode, *(getattr(self.data, name) for name in names)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()

    def _first_sample(self) -> Sample | None:
        """Encode the first rows, uncounted, and return the first sample.

        So that mistakes show before the model is loaded: ``DataError`` when none of these rows can be used.
        """
        trial = [_source(one.opened, one.first_file) for one in self.sources]
        task, ticket = next(self._tasks(self._raw(Place()), CHUNK), (None, None))
        if task is None or ticket is None:
            raise DataError("--dataset holds no rows.")
        gathered = _Gathered(self._files)
        self._absorb(trial, gathered, ticket, self.encoder(task))
        if gathered.tokens:
            return gathered.window(Place()).rows[0]
        worst = next(one for one in trial if one.ledger.selected)
        if self.data.max_dropped < 1:
            raise DataError(self._too_many(worst))
        return None

    def windows(self, execute: Execute, place: Place, tokens: int = 0) -> Iterator[Window]:
        """Yield what is left of a pass from a window's place on; each holds at least so many ``tokens`` as well.

        Raises ``DataError`` for a bad row under --strict, and when more than --max_dropped of a dataset's rows had to
        be dropped, or all of them.
        """
        self._began = self._began or time.perf_counter()
        tickets: deque[_Ticket] = deque()
        gathered = _Gathered(self._files)
        sources = self.sources if place.epoch == 0 else [_source(one.opened, one.first_file) for one in self.sources]
        for found in execute(self._noted(place, tickets)):
            ticket = tickets.popleft()
            self._absorb(sources, gathered, ticket, found)
            self._rows += ticket.size
            if gathered.raw >= self.window_rows and gathered.tokens >= tokens:
                self._check(sources)
                self._tokens += gathered.tokens
                yield gathered.window(place)
                place = self._place(place, ticket)
                gathered = _Gathered(self._files)
        self._check(sources, ended=True)
        self._tokens += gathered.tokens
        if gathered.raw:
            yield gathered.window(place)

    def _noted(self, place: Place, tickets: deque[_Ticket]) -> Iterator[Task]:
        for task, ticket in self._tasks(self._raw(place), -(-self.window_rows // self.chunks)):
            tickets.append(ticket)
            yield task

    def _raw(self, place: Place) -> RawRows:
        return RawRows([one.opened for one in self.sources], self._mixture, place.epoch, place.raw, self._ended)

    def _ended(self, number: int, rows: int) -> None:
        one = self.sources[number].opened
        if one.count is not None and rows < one.count:
            self.run.warn(f"{one.label}: it has only {rows:,} rows; a stream does not repeat them to make a count.")

    def _tasks(self, raw: RawRows, size: int) -> Iterator[tuple[Task, _Ticket]]:
        rows = iter(raw)
        while piece := list(islice(rows, size)):
            task: Task = {}
            origins: dict[int, list[tuple[int, int, int]]] = {}
            for place, one in enumerate(piece):
                task.setdefault(one.dataset, []).append(one.row)
                origins.setdefault(one.dataset, []).append((place, one.file, one.round))
            yield task, _Ticket(origins, raw.place, len(piece))

    def _absorb(self, sources: list[Source], to: _Gathered, ticket: _Ticket, found: Outcome) -> None:
        """Count what became of a task's rows, and gather those that are used."""
        if isinstance(found, MartletError):
            raise found
        for number, chunk in found.items():
            source, origins = sources[number], ticket.origins[number]
            source.opened.converter.renamed |= chunk.renamed
            count = source.ledger
            for drop in chunk.drops:
                self._drop(source, drop, origins[drop.position][1], counted=sources is self.sources)
            again = sum(round > 0 for _, _, round in origins)
            count.read += len(origins) - again
            count.repeated += again
            count.selected += len(origins)
            count.made += sum(chunk.made) - len(origins)
            count.train += len(chunk.owners)
            count.layouts.update(chunk.seen)
            if chunk.block is not None:
                count.tokens += sum(chunk.block.lengths)
                count.supervised_tokens += sum(chunk.block.counts)
                owners = np.repeat(chunk.owners, self.group).tolist()
                chunk.block.files = [source.first_file + origins[owner][1] for owner in owners]
                to.add(chunk.block, [to.raw + origins[owner][0] for owner in owners])
        to.raw += ticket.size

    def _drop(self, source: Source, drop: Drop, file: int, *, counted: bool) -> None:
        place = RowId(source.opened.label, source.opened.files[file], drop.line)
        if self.data.strict:
            raise bad_row(place, drop.reason, drop.detail)
        one = Dropped(place, drop.reason, " ".join(drop.detail.split())[:300], length=drop.length)
        if drop.reason not in source.ledger.dropped:
            source.drops.append(one)
            if counted:
                self.ledger.rows.append(one)
        source.ledger.dropped[drop.reason] += 1
        if counted:
            self.log.add(one)

    def _check(self, sources: list[Source], *, ended: bool = False) -> None:
        """Refuse to go on when too many rows are lost. Without rows enough there is no judging yet."""
        for source in sources if sources is self.sources else ():
            one = source.ledger
            judged = one.selected >= ENOUGH or (ended and one.selected > 0)
            if judged and (one.share_dropped > self.data.max_dropped or (ended and not one.used)):
                self.write_ledger()
                raise DataError(self._too_many(source))

    def _too_many(self, source: Source) -> str:
        one = source.ledger
        allowed = self.data.max_dropped
        limit = f"more than --max_dropped {allowed:g} allows: " if one.share_dropped > allowed else ""
        return (
            f"{one.dataset}: {one.lost:,} of the first {one.selected + one.made:,} rows ({one.share_dropped:.1%}) "
            f"cannot be used, {limit}{reasons(self.run, source)} Mend the rows, or raise --max_dropped.{see(self.run)}"
        )

    # Places

    def _place(self, before: Place, ticket: _Ticket) -> Place:
        counts = [_counts(one.ledger) for one in self.sources]
        return Place(before.epoch, before.window + 1, ticket.behind, counts, self.log.size)

    def next_pass(self, epoch: int) -> Place:
        """Return where a later pass begins."""
        return Place(epoch, ledger=[_counts(one.ledger) for one in self.sources], dropped=self.log.size)

    def save(self, folder: Path, place: Place) -> None:
        """Write the dropped rows up to a place into a checkpoint, bring the ledger up to date, tell the throughput."""
        self.log.save(folder, place.dropped)
        self.write_ledger()
        self._tell_throughput()

    def restore(self, folder: Path, place: Place) -> None:
        """Take up the counts of a checkpoint."""
        self.log.restore(folder, place.dropped)
        for source, counts in zip(self.sources, place.ledger or (), strict=False):
            for name, value in counts.items():
                setattr(source.ledger, name, Counter(value) if isinstance(value, dict) else value)

    # Reports

    def write_ledger(self) -> None:
        """Write ``ledger.json`` and what is missing of ``dropped.jsonl``."""
        if self.run.folder is not None and self.run.process.rank == 0:
            self.ledger.write_counts(self.run.folder)
            self.log.flush()

    def finish(self) -> None:
        """Write and log the ledger and the throughput."""
        warn_about_columns(self.run, [one.opened.converter for one in self.sources])
        self.run.note("data", {"fingerprint": self.fingerprint, **self.ledger.as_dict()})
        self.write_ledger()
        if self.run.process.rank == 0:
            self.run.logger.info("Datasets\n%s", self.ledger.table())
        self._tell_throughput()

    def _tell_throughput(self) -> None:
        if self.run.process.rank == 0:
            seconds, share = time.perf_counter() - self._began, self.ledger.totals()["supervised_share"]
            self.run.logger.info(throughput("Streamed", self._rows, self._tokens, share, seconds))


def prepare_stream(run: Run, template: BoundTemplate, mode: Mode) -> Prepared:
    """Open what --dataset names as a stream; what --val_dataset names is encoded whole, as without --streaming.

    Raises ``DataError`` when none of the first rows can be used.
    """
    data = run.config[DataArguments]
    opened = [open_stream(run, text, "--dataset", data.columns) for text in data.dataset]
    parts = parts_of(run, "eval") if data.val_dataset or data.cached_val_dataset else []
    arrays = encode(run, template, parts, mode)
    stream = SampleStream(run, template, opened, judge(run, parts, template.max_length), mode)
    evaluation = samples(run, parts, arrays, "eval", mode.group) if parts else None
    return Prepared(stream, evaluation, stream.ledger, stream.fingerprint, stream.group, stream.finish)


class _Gathered:
    """A window in the making."""

    def __init__(self, files: list[tuple[str, str]]) -> None:
        self.raw = self.tokens = 0
        self._store, self._turns = Store(files), array("q")

    def add(self, block: Block, turns: list[int]) -> None:
        self._store.append(block)
        self._turns.extend(turns)
        self.tokens += sum(block.lengths)

    def window(self, place: Place) -> Window:
        order = np.argsort(np.frombuffer(self._turns, np.int64), kind="stable")
        return Window(place, EncodedDataset([self._store.close()], order))


def _source(opened: OpenedStream, first_file: int) -> Source:
    return Source(opened, DatasetLedger(opened.label, "train", list(opened.files)), first_file)


_COUNTS = ("layouts", "read", "repeated", "selected", "made", "dropped", "train", "tokens", "supervised_tokens")


def _counts(one: DatasetLedger) -> dict[str, Any]:
    found = {name: getattr(one, name) for name in _COUNTS}
    return {name: dict(value) if isinstance(value, Counter) else value for name, value in found.items()}


def _size(file: str) -> list[Any]:
    path = Path(file)
    return [path.name, path.stat().st_size if path.is_file() else None]
