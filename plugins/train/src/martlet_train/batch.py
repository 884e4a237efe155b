"""Batches: how encoded rows become tensors, padded or laid one behind another.

Only supervised positions matter to a loss, so a batch says where they are instead of repeating the labels:
``targets[i]`` is a supervised token, and the hidden state at (``rows[i]``, ``columns[i]``) is the one that predicts it.
The three read the same for padded and for packed batches. The first token of a sequence is never a target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
Array = Any
"""A numpy array of integers or floats, or a list of them."""


class Row(Protocol):
    """One encoded sequence, unshifted: a ``protocols.Encoded`` or a ``martlet_data`` ``Sample``."""

    input_ids: Array
    labels: Array
    token_weights: Array | None
    extra: dict[str, Any]


@dataclass
class Batch:
    """Rows as the model takes them. S sequences, N supervised tokens."""

    model_inputs: dict[str, Tensor]
    """Padded: ``input_ids`` and ``attention_mask``, both (B, T) i64; padded on the left, ``position_ids`` as well.
    Packed: ``input_ids`` (1, T) i64 and ``position_ids`` (1, T) i64 that begin anew at 0, and no mask."""
    targets: Tensor
    """(N,) i64: the supervised tokens, sequence by sequence."""
    rows: Tensor
    """(N,) i64: row of ``input_ids`` where each is predicted."""
    columns: Tensor
    """(N,) i64: column of the token before it."""
    sequence: Tensor
    """(N,) i64: which sequence each belongs to, from 0."""
    sequences: int
    """S. Sequences without a supervised token count as well."""
    weights: Tensor | None = None
    """(N,) f32, or None when every token weighs 1."""
    extra: list[dict[str, Any]] = field(default_factory=list)
    """(S,): what the rows brought along for losses and metrics."""
    packed: bool = False
    ends: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """(S,) i64: where the last token of each sequence stands in the flattened ``input_ids``."""
    numbers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """(S,) i64: which row of the dataset each sequence is; empty for a stream."""
    filler: bool = False
    """It is computed so that every process takes as many batches, and counts for nothing."""
    attached: dict[str, Batch] = field(default_factory=dict)
    """Further batches of an algorithm."""

    @property
    def tokens(self) -> int:
        """Positions that the model computes, padding included."""
        return self.model_inputs["input_ids"].numel()

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on ``device``, copied without waiting where memory is page-locked."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory. The data loader calls this."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {"model_inputs": {name: change(x) for name, x in self.model_inputs.items()}}
        changed["attached"] = {name: batch._map(change) for name, batch in self.attached.items()}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = change(value)
        return replace(self, **changed)

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays, which travel through a pipe: tensors would take a file in shared memory each, and containers
        # often have 64 MB of that.
        state = {item.name: _to_numpy(getattr(self, item.name)) for item in fields(self)}
        return _restore, (state,)


def _to_numpy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_numpy(item) for name, item in value.items()}
    return value.numpy() if isinstance(value, Tensor) else value


def _restore(state: dict[str, Any]) -> Batch:
    return Batch(**{name: _to_torch(value) for name, value in state.items()})


def _to_torch(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _to_torch(item) for name, item in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@dataclass(frozen=True)
class Collator:
    """Turn encoded rows into a ``Batch``. Picklable, and free of any tokenizer."""

    pad_token_id: int
    packed: bool = False
    """Lay the rows one behind another instead of padding them."""
    left: bool = False
    """Put the padding before the rows."""
    branches: bool = False
    """Packed: let every second row go on from what it shares with the one before, which is then computed once; see
    ``documents``."""

    def __call__(self, rows: Sequence[Row], numbers: Sequence[int] = ()) -> Batch:
        places = [_supervised(row, np.asarray(row.labels, dtype=np.int64)) for row in rows]
        shared = self._shared(rows, places)
        lengths = [len(row.input_ids) - skipped for row, skipped in zip(rows, shared, strict=True)]
        starts = self._starts(lengths)
        columns = [at - 1 - skip + start for (at, _), skip, start in zip(places, shared, starts, strict=True)]
        for number, skip in enumerate(shared):
            if skip and len(columns[number]) and places[number][0][0] == skip:  # the shared part predicts its first
                columns[number][0] = starts[number - 1] + skip - 1
        sequence = np.repeat(np.arange(len(rows)), [len(at) for at, _ in places])
        lines = 0 if self.packed else np.arange(len(rows)) * max(lengths)
        return Batch(
            model_inputs=self._packed(rows, shared) if self.packed else self._padded(rows, lengths),
            targets=torch.from_numpy(np.concatenate([targets for _, targets in places])),
            rows=torch.from_numpy(np.zeros_like(sequence) if self.packed else sequence),
            columns=torch.from_numpy(np.concatenate(columns)),
            sequence=torch.from_numpy(sequence),
            sequences=len(rows),
            weights=_weights(rows, places),
            extra=[row.extra for row in rows],
            packed=self.packed,
            ends=torch.from_numpy(lines + starts + np.asarray(lengths) - 1),
            numbers=torch.tensor(list(numbers), dtype=torch.int64),
        )

    def _shared(self, rows: Sequence[Row], places: Sequence[Places]) -> list[int]:
        """Return how many tokens of each row need not be computed again."""
        found = [0] * len(rows)
        if not (self.packed and self.branches):
            return found
        for number in range(1, len(rows), 2):
            one, other = (np.asarray(row.input_ids) for row in rows[number - 1 : number + 1])
            most = min(len(one), len(other)) - 1
            most = min([most, *(int(at[0]) for at, _ in places[number - 1 : number + 1] if len(at))])
            differ = np.flatnonzero(one[:most] != other[:most])
            found[number] = int(differ[0]) if len(differ) else max(most, 0)
        return found

    def _starts(self, lengths: list[int]) -> np.ndarray[Any, Any]:
        """Return the column of the first token of each row that is computed."""
        if self.packed:
            return np.cumsum([0, *lengths[:-1]])
        return max(lengths) - np.asarray(lengths) if self.left else np.zeros(len(lengths), dtype=np.int64)

    def _padded(self, rows: Sequence[Row], lengths: list[int]) -> dict[str, Tensor]:
        ids = np.full((len(rows), max(lengths)), self.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, (row, start, length) in enumerate(zip(rows, self._starts(lengths), lengths, strict=True)):
            ids[number, start : start + length] = row.input_ids
            mask[number, start : start + length] = 1
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self.left:  # a row's positions begin at 0, wherever it stands
            inputs["position_ids"] = torch.from_numpy(np.maximum(mask.cumsum(axis=1) - 1, 0))
        return inputs

    def _packed(self, rows: Sequence[Row], shared: list[int]) -> dict[str, Tensor]:
        kept = [np.asarray(row.input_ids, dtype=np.int64)[skip:] for row, skip in zip(rows, shared, strict=True)]
        positions = [np.arange(skip, skip + len(ids)) for ids, skip in zip(kept, shared, strict=True)]
        inputs = {"input_ids": np.concatenate(kept), "position_ids": np.concatenate(positions)}
        return {name: torch.from_numpy(values)[None] for name, values in inputs.items()}


Places = tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]


def _supervised(row: Row, labels: np.ndarray[Any, Any]) -> Places:
    """Return where the supervised tokens of a row stand, and which they are."""
    at = np.flatnonzero(labels[1:] != IGNORED) + 1
    return at, labels[at]


def _weights(rows: Sequence[Row], places: Sequence[Places]) -> Tensor | None:
    if all(row.token_weights is None for row in rows):
        return None
    parts = [
        np.ones(len(at), dtype=np.float32)
        if row.token_weights is None
        else np.asarray(row.token_weights, dtype=np.float32)[at]
        for row, (at, _) in zip(rows, places, strict=True)
    ]
    return torch.from_numpy(np.concatenate(parts))


def sequence_sum(values: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
    """Sum (N,) values of supervised tokens by sequence, each times its weight where (N,) weights are given: (S,)."""
    weighted = values if weights is None else values * weights
    return values.new_zeros(batch.sequences).index_add(0, batch.sequence, weighted)
