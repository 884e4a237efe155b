"""What happens to a chunk of rows: read, convert, encode. Runs in this process or in a worker."""

from __future__ import annotations

import re
import struct
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.errors import DataError
from martlet.protocols import Encoded, Refused

from .args import DataArguments
from .convert import Converter
from .encoded import Block
from .modes import IGNORED, TRAIN, Mode, idle, strategy_of
from .rows import LINE, Row, RowError, RowTable
from .standard import STANDARD_COLUMNS

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run


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
    """For each row that is used, which of the chunk's raw rows it came from; its samples stand side by side."""
    drops: list[Drop] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    renamed: set[str] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)
    """Standard rows, where nothing is encoded."""
    lines: list[int] = field(default_factory=list)
    block: Block | None = None

    def extend(self, other: Chunk, first: int) -> None:
        """Add what is told of the raw rows from number ``first`` on; ``made`` and ``owners`` stay as they are."""
        self.drops += [replace(drop, position=first + drop.position) for drop in other.drops]
        self.seen.update(other.seen)
        self.renamed |= other.renamed
        self.rows += other.rows


@dataclass
class Work:
    """How rows of one dataset are turned into samples. Pickles."""

    table: RowTable
    converter: Converter
    template: BoundTemplate | None = None
    """None leaves rows as they are."""
    keep_columns: bool = False
    """Keep columns that are not part of the standard row."""
    keep_rows: bool = False
    """Keep the standard rows beside their samples."""
    mode: Mode = TRAIN
    strategy: str = "delete"
    """``--truncation_strategy``."""

    def __call__(self, indices: Sequence[int]) -> Chunk:
        """Turn raw rows into samples. Faults of a row are in the result; nothing is raised for them."""
        chunk = Chunk([1] * len(indices))
        self._convert(indices, chunk)
        chunk.seen = self.converter.take_seen()
        chunk.renamed = self.converter.renamed
        if self.template is not None:
            self._encode(chunk)
        elif not self.keep_columns:
            chunk.rows = [{k: row[k] for k in row if k in STANDARD_COLUMNS} for row in chunk.rows]
        return chunk

    def one(self, index: int, which: int) -> Chunk:
        """Turn one of the rows that are made of a raw row into a sample."""
        chunk = Chunk([1])
        self._convert([index], chunk)
        chunk.drops.clear()
        if which >= len(chunk.rows):
            raise DataError(f"{self.converter.label}: row {index + 1} is not as it was when the run began. Start anew.")
        chunk.rows, chunk.lines, chunk.owners = [chunk.rows[which]], [chunk.lines[which]], [0]
        self._encode(chunk)
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
            for row in rows:
                if refused := self.mode.refuse(row):
                    chunk.drops.append(Drop(position, line, refused.reason, refused.detail))
                    continue
                chunk.rows.append(row)
                chunk.owners.append(position)
                chunk.lines.append(line)

    def _encode(self, chunk: Chunk) -> None:
        used: list[tuple[int, Sequence[Encoded]]] = []
        encoded = self.mode.encode(self.template, chunk.rows, self.strategy) if self.template is not None else ()
        for place, found in enumerate(encoded):
            pieces = found if isinstance(found, list) else (found,)
            chunk.made[chunk.owners[place]] += len(pieces) - 1
            for one in pieces:
                made = idle(one) or (one,) if isinstance(one, Encoded) else one
                if isinstance(made, Refused):
                    owner, line = chunk.owners[place], chunk.lines[place]
                    chunk.drops.append(Drop(owner, line, made.reason, made.detail, length_of(made)))
                else:
                    used.append((place, made))
        chunk.drops.sort(key=lambda drop: drop.position)
        samples = [(place, one) for place, row in used for one in row]
        extras = [self._extra(chunk.rows[place], one) for place, one in samples]
        chunk.block = flatten([one for _, one in samples], extras, [chunk.lines[place] for place, _ in samples])
        chunk.owners = [chunk.owners[place] for place, _ in used]
        chunk.lines = [chunk.lines[place] for place, _ in used]
        chunk.rows = [chunk.rows[place] for place, _ in used] if self.keep_rows else []

    def _extra(self, row: Row, one: Encoded) -> dict[str, Any]:
        if self.keep_columns:
            return {name: value for name, value in row.items() if name not in self.mode.encoded} | one.extra
        return {name: row[name] for name in self.mode.kept if name in row} | one.extra


def work_on(
    run: Run, table: RowTable, converter: Converter, template: BoundTemplate, mode: Mode, *, keep_rows: bool = False
) -> Work:
    """Return how rows of a table are turned into samples for a mode."""
    keep_columns = not run.config[DataArguments].remove_unused_columns
    return Work(table, converter, template, keep_columns, keep_rows, mode, strategy_of(run))


def flatten(samples: Sequence[Encoded], extras: list[dict[str, Any]], lines: list[int]) -> Block:
    """Lay samples behind one another in flat arrays. ``DataError`` when a template breaks its contract."""
    ids, labels, weights, weighted = bytearray(), bytearray(), array("f"), []
    lengths = [len(one.input_ids) for one in samples]
    for place, one in enumerate(samples):
        length = lengths[place]
        if len(one.labels) != length or (one.token_weights is not None and len(one.token_weights) != length):
            raise DataError(f"The template gave {len(one.labels)} labels for {length} tokens, or as few weights.")
        ids += struct.pack(f"{length}i", *one.input_ids)
        labels += struct.pack(f"{length}i", *one.labels)
        if one.token_weights is not None:
            weighted.append(place)
            weights.extend(one.token_weights)
    tokens, wanted = np.frombuffer(ids, np.int32), np.frombuffer(labels, np.int32)
    supervised = wanted != IGNORED
    if (wanted != tokens)[supervised].any():
        raise DataError("The template gave a label that is neither the token itself nor -100.")
    starts = np.cumsum([0, *lengths[:-1]]) if lengths else np.zeros(0, np.int64)
    return Block(
        ids=bytes(ids),
        supervised=supervised.tobytes(),
        counts=np.add.reduceat(supervised, starts, dtype=np.int64).tolist() if lengths else [],
        lengths=lengths,
        weights=weights.tobytes(),
        weighted=weighted,
        extras=extras if any(extras) else None,
        files=[],
        lines=lines,
    )


def length_of(refused: Refused) -> int:
    """Return the tokens that a row refused for its length had, as the template's detail says it; else 0."""
    if "long" not in refused.reason and "length" not in refused.reason:
        return 0
    match = re.search(r"\d[\d,]*", refused.detail)
    return int(match[0].replace(",", "")) if match else 0
