"""What happens to a chunk of rows: read, convert, encode. Runs in this process or in a worker."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.errors import DataError, MartletError
from martlet.protocols import Refused

from .convert import Converter
from .encoded import Block
from .rows import LINE, Joined, Row, RowError

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate, Encoded

IGNORED = -100
STANDARD = frozenset({"messages", "tools"})


@dataclass(slots=True)
class Drop:
    """A row of a chunk that cannot be used."""

    position: int
    """Which of the chunk's raw rows."""
    line: int
    reason: str
    detail: str
    length: int = 0


@dataclass(slots=True)
class Chunk:
    """What became of some raw rows."""

    made: list[int]
    """For each raw row, how many rows it was turned into (1 when it could not be converted)."""
    owners: list[int] = field(default_factory=list)
    """For each row that is used, which of the chunk's raw rows it came from."""
    drops: list[Drop] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    renamed: set[str] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)
    """Standard rows, where nothing is encoded."""
    lines: list[int] = field(default_factory=list)
    block: Block | None = None


@dataclass
class Work:
    """How rows of one dataset are turned into samples. Pickles."""

    table: Joined
    converter: Converter
    template: BoundTemplate | None = None
    """None leaves rows as they are."""
    keep_columns: bool = False
    """Keep columns that are not part of the standard row."""

    def __call__(self, indices: Sequence[int]) -> Chunk:
        """Turn raw rows into samples. Faults of a row are in the result; nothing is raised for them."""
        chunk = Chunk([1] * len(indices))
        self._convert(indices, chunk)
        chunk.seen = self.converter.take_seen()
        chunk.renamed = self.converter.renamed
        if self.template is not None:
            self._encode(chunk)
        elif not self.keep_columns:
            chunk.rows = [{k: row[k] for k in row if k in STANDARD} for row in chunk.rows]
        return chunk

    def _convert(self, indices: Sequence[int], chunk: Chunk) -> None:
        for position, raw in enumerate(self.table.take(indices)):
            line = raw.pop(LINE, 0)
            line = line if isinstance(line, int) else indices[position] + 1
            try:
                rows = self.converter(raw)
            except RowError as error:
                chunk.drops.append(Drop(position, line, error.reason, error.detail))
                continue
            chunk.made[position] = len(rows)
            chunk.rows += rows
            chunk.owners += [position] * len(rows)
            chunk.lines += [line] * len(rows)

    def _encode(self, chunk: Chunk) -> None:
        encoded = self._encoded(chunk.rows)
        builder = _Builder(self.keep_columns)
        owners: list[int] = []
        lines: list[int] = []
        for row, owner, line, sample in zip(chunk.rows, chunk.owners, chunk.lines, encoded, strict=True):
            refused = sample if isinstance(sample, Refused) else builder.add(row, sample)
            if refused is None:
                owners.append(owner)
                lines.append(line)
            else:
                chunk.drops.append(Drop(owner, line, refused.reason, refused.detail, length_of(refused)))
        chunk.drops.sort(key=lambda drop: drop.position)
        chunk.rows, chunk.owners, chunk.lines = [], owners, lines
        chunk.block = builder.block(lines)

    def _encoded(self, rows: list[Row]) -> list[Encoded | Refused]:
        if not rows or self.template is None:
            return []
        try:
            encoded = self.template.encode_batch(rows)
        except MartletError:
            raise
        except Exception as error:
            raise DataError(
                f"The template failed on a batch of {len(rows)} rows: {type(error).__name__}: {error}. "
                "It must refuse a row that it cannot encode."
            ) from error
        if len(encoded) != len(rows):
            raise DataError(f"The template returned {len(encoded)} samples for {len(rows)} rows.")
        return encoded


class _Builder:
    """Collect encoded samples in flat arrays."""

    def __init__(self, keep_columns: bool) -> None:
        self.keep_columns = keep_columns
        self.ids, self.supervised = bytearray(), bytearray()
        self.weights = array("f")
        self.counts: list[int] = []
        self.lengths: list[int] = []
        self.weighted: list[int] = []
        self.extras: list[dict[str, Any]] = []

    def add(self, row: Row, sample: Encoded) -> Refused | None:
        """Append a sample, or say why it teaches nothing."""
        ids, labels = np.asarray(sample.input_ids, np.int32), np.asarray(sample.labels, np.int32)
        if len(ids) != len(labels):
            raise DataError(f"The template gave {len(labels)} labels for {len(ids)} tokens.")
        mask = labels != IGNORED
        count = int(np.count_nonzero(mask))
        weights = sample.token_weights
        if count <= int(mask[:1].sum()) or (weights is not None and not any(weights[1:])):
            return Refused("nothing supervised", "no token of it would be trained on")
        if (labels != ids)[mask].any():
            raise DataError("The template gave a label that is neither the token itself nor -100.")
        self.ids += ids.tobytes()
        self.supervised += mask.tobytes()
        self.counts.append(count)
        if weights is not None:
            if len(weights) != len(ids):
                raise DataError(f"The template gave {len(weights)} token weights for {len(ids)} tokens.")
            self.weighted.append(len(self.lengths))
            self.weights.extend(weights)
        self.lengths.append(len(ids))
        extra = {k: v for k, v in row.items() if k not in STANDARD} if self.keep_columns else {}
        self.extras.append(extra | sample.extra)
        return None

    def block(self, lines: list[int]) -> Block:
        return Block(
            ids=bytes(self.ids),
            supervised=bytes(self.supervised),
            counts=self.counts,
            lengths=self.lengths,
            weights=self.weights.tobytes(),
            weighted=self.weighted,
            extras=self.extras if any(self.extras) else None,
            files=[],
            lines=lines,
        )


def length_of(refused: Refused) -> int:
    """Return the tokens that a row refused for its length had, as the template's detail says it; else 0."""
    if "long" not in refused.reason and "length" not in refused.reason:
        return 0
    match = re.search(r"\d[\d,]*", refused.detail)
    return int(match[0].replace(",", "")) if match else 0
