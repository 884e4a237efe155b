"""Which rows are drawn, and in what order: ``#count``, the evaluation split, shuffling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

DRAW, SPLIT, SHUFFLE = 1, 2, 3


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Return the random numbers for one purpose and dataset; they do not depend on any other."""
    return np.random.default_rng([seed, purpose, number])


def draw(rows: Ints, count: int | None, rng: np.random.Generator | None) -> Ints:
    """Draw ``count`` of ``rows``; without ``rng`` the first ones.

    Fewer than there are: without repetition. More: each ``count // len(rows)`` times, and ``count % len(rows)`` of
    them, drawn without repetition, once more.
    """
    if count is None or not len(rows):
        return rows
    times, more = divmod(count, len(rows))
    rest = rows[:more] if rng is None else rng.permutation(rows)[:more]
    return np.concatenate([np.tile(rows, times), rest])


def split(
    total: int, count: int | None, ratio: float, rng: np.random.Generator | None
) -> tuple[Ints, Ints, int | None]:
    """Set rows of one dataset aside for evaluation.

    Returns training candidates, evaluation rows (distinct, and none of them a candidate), and how many candidates
    are still to be drawn. Without ``rng`` the evaluation rows are the last ones.
    """
    rows = np.arange(total, dtype=np.int64)
    if ratio <= 0 or not total:
        return rows, rows[:0], count
    held = min(total, max(1, int(min(total, count or total) * ratio)))
    order = rows if rng is None else rng.permutation(rows)
    cut = total - held
    train, evaluation = np.sort(order[:cut]), np.sort(order[cut:])
    if count is None:
        return train, evaluation, None
    return (train if count > held else train[:0]), evaluation, max(count - held, 0) or None
