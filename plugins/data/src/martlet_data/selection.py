"""The datasets of a run: which rows of each are drawn, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from martlet.errors import DataError

from .args import DataArguments
from .convert import known_layouts
from .ledger import DatasetLedger, Dropped, Ledger, RowId
from .opening import Opened, open_dataset
from .sampling import DRAW, SHUFFLE, SPLIT, draw, generator, split
from .work import Chunk

if TYPE_CHECKING:
    from martlet.run import Run

Ints = npt.NDArray[np.int64]


@dataclass
class Part:
    """One dataset: the raw rows that are drawn from it, in order and with repeats."""

    opened: Opened
    train: Ints
    eval: Ints
    ledger: DatasetLedger
    needed: Ints = field(init=False)
    """The different raw rows among them, ascending: what has to be read."""
    made: Ints = field(init=False)
    """(len(needed),) rows that each was turned into."""
    used: Ints = field(init=False)
    """(len(needed),) rows of those that are used."""
    drops: list[Dropped] = field(default_factory=list)
    _done: int = 0

    def __post_init__(self) -> None:
        self.needed = np.union1d(self.train, self.eval).astype(np.int64)
        self.made = np.ones(len(self.needed), np.int64)
        self.used = np.zeros(len(self.needed), np.int64)
        drawn = np.concatenate([self.train, self.eval])
        self._times = np.bincount(np.searchsorted(self.needed, drawn), minlength=len(self.needed))

    def absorb(self, chunk: Chunk, *, strict: bool) -> list[int]:
        """Count what became of the next rows; return the number of the file of each row that is used."""
        start, count = self._done, len(chunk.made)
        files = self.opened.table.numbers(self.needed[start : start + count])
        self.made[start : start + count] = chunk.made
        self.used[start : start + count] = np.bincount(np.asarray(chunk.owners, np.int64), minlength=count)
        self.ledger.layouts.update(chunk.seen)
        for drop in chunk.drops:
            place = RowId(self.opened.label, self.opened.files[int(files[drop.position])], drop.line)
            if strict:
                raise bad_row(place, drop.reason, drop.detail)
            times = int(self._times[start + drop.position])
            self.drops.append(Dropped(place, drop.reason, " ".join(drop.detail.split())[:300], times, drop.length))
            self.ledger.dropped[drop.reason] += times
        self._done += count
        return [int(files[owner]) for owner in chunk.owners]

    def places(self, drawn: Ints, base: int) -> Ints:
        """Return where the rows made of ``drawn`` are, in order; the first row of this dataset is at ``base``."""
        starts = base + np.concatenate([[0], np.cumsum(self.used)[:-1]]) if len(self.used) else self.used
        at = np.searchsorted(self.needed, drawn)
        counts = self.used[at]
        firsts = np.repeat(starts[at] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) if len(at) else at
        return firsts + np.arange(int(counts.sum()))

    def settle(self) -> None:
        """Fill in the counts of the ledger once all rows are done."""
        one = self.ledger
        one.made = int(((self.made - 1) * self._times).sum())
        one.train = int(self.used[np.searchsorted(self.needed, self.train)].sum())
        one.eval = int(self.used[np.searchsorted(self.needed, self.eval)].sum())
        if not one.balanced():
            raise DataError(f"The ledger of {one.dataset} does not add up: {one.as_dict()}. Please report this.")


def bad_row(place: RowId, reason: str, detail: str) -> DataError:
    """Say which row stops a strict run, and why."""
    why = f"{reason}: {detail}" if detail else reason
    return DataError(f"{place}: {why}. Mend the row, or run without --strict to drop it.")


def parts_of(run: Run, use: str = "all") -> list[Part]:
    """Open --dataset and --val_dataset, and draw their rows: ``all``, or those to ``train`` or to ``eval`` on alone."""
    data = run.config[DataArguments]
    ratio = data.split_dataset_ratio
    if ratio and data.val_dataset:
        run.warn("--split_dataset_ratio has no effect beside --val_dataset, which is evaluated on.")
        ratio = 0.0
    parts = []
    for number, text in enumerate(data.dataset if use != "eval" or not data.val_dataset else ()):
        opened = open_dataset(run, text, "--dataset", data.columns)
        parts.append(_drawn(opened, "train", data.data_seed, number, data.dataset_shuffle, ratio, use))
    for number, text in enumerate(data.val_dataset if use != "train" else ()):
        opened = open_dataset(run, text, "--val_dataset", data.columns)
        parts.append(_drawn(opened, "eval", data.data_seed, number, data.val_dataset_shuffle))
    return parts


def parts_named(run: Run, references: Sequence[str], flag: str) -> list[Part]:
    """Open datasets that the caller names, for evaluation or inference."""
    data = run.config[DataArguments]
    return [
        _drawn(open_dataset(run, text, flag, data.columns), "eval", data.data_seed, number, data.val_dataset_shuffle)
        for number, text in enumerate(references)
    ]


def _drawn(
    opened: Opened, role: str, seed: int, number: int, random: bool, ratio: float = 0.0, use: str = "all"
) -> Part:
    total = len(opened.table)
    stream = 2 * number + (role == "eval")
    train, held, count = split(total, opened.count, ratio, generator(seed, SPLIT, stream) if random else None)
    drawn = draw(train, count, generator(seed, DRAW, stream) if random else None)
    kept, held = (drawn, held) if role == "train" else (drawn[:0], drawn)
    kept, held = kept if use != "eval" else kept[:0], held if use != "train" else held[:0]
    part = Part(opened, kept, held, DatasetLedger(opened.label, role, list(opened.files)))
    part.ledger.read = total
    part.ledger.selected = len(part.train) + len(part.eval)
    part.ledger.not_sampled = total - len(part.needed)
    part.ledger.repeated = part.ledger.selected - len(part.needed)
    return part


def shuffled(places: Ints, run: Run, role: str) -> Ints:
    """Shuffle the joined rows of all datasets once, if the flag of their role says so."""
    data = run.config[DataArguments]
    if not (data.dataset_shuffle if role == "train" else data.val_dataset_shuffle):
        return places
    return generator(data.data_seed, SHUFFLE, int(role == "eval")).permutation(places)


def check(run: Run, parts: Sequence[Part], max_length: int | None) -> Ledger:
    """Settle the ledger, write it where the run has a folder, and refuse to go on when too much is lost."""
    for part in parts:
        part.settle()
    ledger = Ledger([part.ledger for part in parts], [drop for part in parts for drop in part.drops])
    if run.folder is not None and run.process.rank == 0:
        ledger.write(run.folder)
    _warn_about_columns(run, parts)
    limit = run.config[DataArguments].max_dropped
    for part in parts:
        one = part.ledger
        if not one.used:
            raise DataError(_nothing_left(run, part, max_length))
        if one.share_dropped > limit:
            raise DataError(
                f"{one.dataset}: {one.lost:,} of {one.selected + one.made:,} rows ({one.share_dropped:.1%}) cannot be "
                f"used, more than --max_dropped {limit:g} allows: {_reasons(run, part)} Mend the rows, or raise "
                f"--max_dropped.{_see(run)}"
            )
    return ledger


def _nothing_left(run: Run, part: Part, max_length: int | None) -> str:
    lengths = [drop.length for drop in part.drops if drop.length]
    if len(lengths) == len(part.drops) and max_length:
        return (
            f"{part.ledger.dataset}: every row is longer than --max_length {max_length}; the longest has "
            f"{max(lengths):,} tokens, the shortest {min(lengths):,}. Raise --max_length, or cut rows with "
            f"--truncation_strategy right.{_see(run)}"
        )
    one = part.ledger
    return f"{one.dataset}: none of its {one.selected:,} rows can be used: {_reasons(run, part)}{_see(run)}"


def _reasons(run: Run, part: Part) -> str:
    """List the reasons, most frequent first, each with an example."""
    found = []
    for reason, count in part.ledger.dropped.most_common():
        drop = next(d for d in part.drops if d.reason == reason)
        found.append(f"{count:,} {reason} ({drop.id}{f': {drop.detail}' if drop.detail else ''})")
    text = f"{'; '.join(found)}."
    if "unknown layout" in part.ledger.dropped:
        text += (
            f" Known layouts: {known_layouts(run)}. Other columns can be renamed: "
            '--columns \'{"my_question": "query", "my_answer": "response"}\'.'
        )
    return text


def _see(run: Run) -> str:
    return f" Every dropped row is in {run.folder / 'dropped.jsonl'}." if run.folder is not None else ""


def _warn_about_columns(run: Run, parts: Sequence[Part]) -> None:
    wanted = set(run.config[DataArguments].columns or {})
    for name in sorted(wanted - set().union(*(part.opened.converter.renamed for part in parts))):
        run.warn(f"--columns: no row has a column {name!r}.")
