"""Encoded samples in a few flat arrays: five bytes a token, and nothing per row but its offset."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from .ledger import RowId

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Sample:
    """One encoded sequence, unshifted. The arrays are the caller's own: writing to them changes nothing else."""

    input_ids: npt.NDArray[np.int32]
    """(T,)"""
    labels: npt.NDArray[np.int32]
    """(T,), ``input_ids`` where the token is supervised, else -100."""
    token_weights: npt.NDArray[np.float32] | None = None
    """(T,), or None when every supervised token weighs 1."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Columns that the template kept, and all others with ``--remove_unused_columns false``."""

    @property
    def length(self) -> int:
        return len(self.input_ids)


@dataclass(slots=True)
class Block:
    """Some encoded rows, as they travel from a worker to the store."""

    ids: bytes
    """int32"""
    supervised: bytes
    """One byte a token."""
    counts: list[int]
    """Supervised tokens of each row."""
    lengths: list[int]
    weights: bytes
    """float32, of the rows that have weights, one after another."""
    weighted: list[int]
    """Positions of those rows in this block."""
    extras: list[dict[str, Any]] | None
    files: list[int]
    lines: list[int]


class Store:
    """Rows in the order they were encoded. Append blocks, then ``close``."""

    def __init__(self, sources: Sequence[tuple[str, str]] = ()) -> None:
        self._ids, self._supervised, self._weights = array("i"), bytearray(), array("f")
        self._lengths, self._counts, self._files, self._lines = array("q"), array("q"), array("i"), array("q")
        self._weight_rows, self._weight_starts = array("q"), array("q")
        self._extras: dict[int, dict[str, Any]] = {}
        self.sources = list(sources)
        """(dataset, file) by number."""

    def __len__(self) -> int:
        return len(self._lengths)

    def append(self, block: Block) -> None:
        first = len(self._lengths)
        start = len(self._weights)
        for position in block.weighted:
            self._weight_rows.append(first + position)
            self._weight_starts.append(start)
            start += block.lengths[position]
        self._ids.frombytes(block.ids)
        self._supervised += block.supervised
        self._weights.frombytes(block.weights)
        self._lengths.extend(block.lengths)
        self._counts.extend(block.counts)
        self._files.extend(block.files)
        self._lines.extend(block.lines)
        for position, extra in enumerate(block.extras or ()):
            if extra:
                self._extras[first + position] = extra

    def close(self) -> Arrays:
        """Return the arrays, without copying them. The store must not be appended to again."""
        lengths = np.frombuffer(self._lengths, np.int64)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        weight_start = np.full(len(lengths) if self._weight_rows else 0, -1, np.int64)
        if self._weight_rows:
            weight_start[np.frombuffer(self._weight_rows, np.int64)] = np.frombuffer(self._weight_starts, np.int64)
        return Arrays(
            ids=np.frombuffer(self._ids, np.int32),
            supervised=np.frombuffer(self._supervised, np.bool_),
            counts=np.frombuffer(self._counts, np.int64),
            offsets=offsets,
            weights=np.frombuffer(self._weights, np.float32),
            weight_start=weight_start,
            files=np.frombuffer(self._files, np.int32),
            lines=np.frombuffer(self._lines, np.int64),
            extras=self._extras,
            sources=self.sources,
        )


@dataclass(slots=True)
class Arrays:
    """What a closed store holds. N rows, M tokens."""

    ids: npt.NDArray[np.int32]
    """(M,)"""
    supervised: npt.NDArray[np.bool_]
    """(M,)"""
    counts: Ints
    """(N,) supervised tokens of each row."""
    offsets: Ints
    """(N + 1,)"""
    weights: npt.NDArray[np.float32]
    weight_start: Ints
    """(N,) or empty: where in ``weights`` the row's begin, -1 for none."""
    files: npt.NDArray[np.int32]
    lines: Ints
    extras: dict[int, dict[str, Any]]
    sources: list[tuple[str, str]]

    known_digest: str = ""
    """What ``digest`` returns, once it is known."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def digest(self) -> str:
        """Return the SHA-256 of everything that training sees."""
        if not self.known_digest:
            found = hashlib.sha256()
            for part in (self.ids, self.supervised, self.offsets, self.weights, self.weight_start):
                found.update(str((part.dtype.str, part.shape)).encode())
                found.update(part.view(np.uint8).data)
            for row in sorted(self.extras):
                found.update(json.dumps([row, self.extras[row]], sort_keys=True, default=repr).encode())
            self.known_digest = found.hexdigest()
        return self.known_digest

    def sample(self, row: int) -> Sample:
        """Return a row as fresh numpy arrays: int32, int32, float32 or None."""
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        ids = self.ids[start:end].copy()
        labels = np.where(self.supervised[start:end], ids, np.int32(-100))
        weights = None
        if len(self.weight_start) and (first := int(self.weight_start[row])) >= 0:
            weights = self.weights[first : first + end - start].copy()
        return Sample(ids, labels, weights, dict(self.extras.get(row, {})))

    def tokens(self, row: int) -> npt.NDArray[np.int32]:
        """Return the token ids of a row: a view."""
        return self.ids[int(self.offsets[row]) : int(self.offsets[row + 1])]

    def rows(self, wanted: Ints, cut: Ints, side: str) -> Arrays:
        """Return some rows, in that order, each without so many tokens at its ``side``: left or right."""
        kept = np.diff(self.offsets)[wanted] - cut
        skipped = cut if side == "left" else np.zeros_like(cut)
        offsets = np.concatenate([[0], np.cumsum(kept)])
        tokens = _ranges(self.offsets[wanted] + skipped, kept)
        supervised = self.supervised[tokens]
        weights, weight_start = self.weights[:0], self.weight_start[:0]
        if len(self.weight_start):
            first = self.weight_start[wanted]
            weighted = first >= 0
            weights = self.weights[_ranges((first + skipped)[weighted], kept[weighted])]
            weight_start = np.full(len(wanted), -1, np.int64)
            weight_start[weighted] = np.cumsum(kept[weighted]) - kept[weighted]
        sums = np.concatenate([[0], np.cumsum(supervised)])
        extras = {at: self.extras[row] for at, row in enumerate(wanted.tolist()) if row in self.extras}
        return Arrays(
            ids=self.ids[tokens],
            supervised=supervised,
            counts=sums[offsets[1:]] - sums[offsets[:-1]],
            offsets=offsets,
            weights=weights,
            weight_start=weight_start,
            files=self.files[wanted],
            lines=self.lines[wanted],
            extras=extras,
            sources=self.sources,
        )


def grouped(places: Ints, group: int) -> Ints:
    """Return the places of the samples of rows, those of a row side by side. ``group``: samples of each row."""
    return (places[:, None] * group + np.arange(group)).reshape(-1)


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """Return the numbers from each start on, as many as its count says, one range behind another."""
    firsts = np.cumsum(counts) - counts
    return np.repeat(starts - firsts, counts) + np.arange(int(counts.sum()))


class EncodedDataset(Sequence[Sample]):
    """Samples in the order they are to be used. Map-style; pickles, so that data workers may be spawned."""

    def __init__(self, pieces: Sequence[Arrays], order: Ints) -> None:
        self._pieces, self._order = list(pieces), order
        self._ends = list(accumulate(map(len, pieces)))
        lengths = [np.diff(piece.offsets) for piece in pieces]
        self.lengths: Ints = np.concatenate(lengths)[order] if lengths else np.zeros(0, np.int64)
        """(N,) tokens of each sample."""
        self._fingerprint = ""

    def __len__(self) -> int:
        return len(self._order)

    def _place(self, index: int) -> tuple[Arrays, int]:
        """Return which arrays hold a sample, and in which row."""
        row = int(self._order[index])
        number = bisect_right(self._ends, row)
        return self._pieces[number], row - (self._ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Return a sample as fresh numpy arrays: int32, int32, float32 or None."""
        store, row = self._place(index)
        return store.sample(row)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def origin(self, index: int) -> RowId:
        """Say which row of which file a sample was made from."""
        store, row = self._place(index)
        dataset, file = store.sources[store.files[row]]
        return RowId(dataset, file, int(store.lines[row]))

    def select(self, indices: Sequence[int] | Ints) -> EncodedDataset:
        """Return a dataset of some samples, in that order, over the same memory."""
        return EncodedDataset(self._pieces, self._order[np.asarray(indices, np.int64)])

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the token ids, the supervised positions, the weights, extra columns and the order.

        Equal datasets have equal fingerprints, whatever number of processes encoded them, and whether they were read
        from a cache or encoded anew.
        """
        if not self._fingerprint:
            digests = "".join(piece.digest() for piece in self._pieces)
            text = digests.encode() + np.ascontiguousarray(self._order).tobytes()
            self._fingerprint = hashlib.sha256(text).hexdigest()
        return self._fingerprint
