"""Rows with partners: each prompt with the answer of another row, for KTO's estimate of the KL divergence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from martlet import DataError
from martlet_data.api import EncodedDataset, RowId, Sample

IGNORED = -100


class Mismatched(Sequence[Sample]):
    """Sample 2k is row k, and 2k + 1 its partner: the prompt of row k with the answer of row k + 1, or of the first.

    The prompt is what stands before the first supervised token, the answer the rest. So partners depend on the dataset
    alone, not on batches or processes. What is longer than ``limit`` (None: the longest row) loses its end.
    """

    def __init__(self, rows: EncodedDataset, limit: int | None, use: str) -> None:
        """Find where each answer begins. ``DataError`` where a row has no partner or no prompt; for that, ``use``."""
        if len(rows) < 2:
            raise DataError(
                f"There is one row to {use} on, and its prompt needs the answer of another row beside it, because the "
                "KL divergence is estimated from such mismatches. Give at least two rows."
            )
        self.rows = rows
        self.limit = int(rows.lengths.max()) if limit is None else limit
        samples = [(int((sample.labels != IGNORED).argmax()), bool(sample.extra["label"])) for sample in rows]
        self.prompts = np.array([prompt for prompt, _ in samples])
        """(N,) tokens before each answer."""
        self.labels = [label for _, label in samples]
        bare = np.flatnonzero(self.prompts == 0)
        if len(bare):
            raise DataError(
                f"{rows.origin(int(bare[0]))} is trained on from its first token, so it has no prompt that another "
                "answer could follow. Give it a question, or choose another --loss_scale."
            )
        partners = np.minimum(self.prompts + np.roll(rows.lengths - self.prompts, -1), self.limit)
        self.lengths = np.stack([rows.lengths, partners], axis=1).reshape(-1)
        """(2 N,) tokens of each sample."""

    def __len__(self) -> int:
        return 2 * len(self.rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Return a row or its partner."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, partner = divmod(index, 2)
        row = self.rows[number]
        return self._partner(row, number) if partner else row

    def _partner(self, row: Sample, number: int) -> Sample:
        following = (number + 1) % len(self.rows)
        other, prompt, start = self.rows[following], self.prompts[number], self.prompts[following]

        def joined(first: Any, second: Any) -> Any:
            return np.concatenate([first[:prompt], second[start:]])[: self.limit]

        weights = None
        if other.token_weights is not None:
            weights = joined(np.zeros(prompt, np.float32), other.token_weights)
        labels = joined(row.labels, other.labels)
        return Sample(joined(row.input_ids, other.input_ids), labels, weights, row.extra)

    def origin(self, index: int) -> RowId:
        """Say which row of which file a sample was made from."""
        return self.rows.origin(index // 2)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that the samples depend on."""
        return hashlib.sha256(f"{self.rows.fingerprint} mismatched {self.limit}".encode()).hexdigest()
