"""What can be said of encoded datasets in numbers: lengths, masks, packs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .packing import pack

Ints = npt.NDArray[np.int64]

PACK = 4096
"""Tokens of a pack where neither --packing_length nor --max_length says it."""
QUANTILES = (50, 90, 95, 99)
BINS = 40


@dataclass(frozen=True)
class Histogram:
    """``counts[k]`` values lie in ``[edges[k], edges[k + 1])``, the last edge included."""

    edges: list[float]
    counts: list[int]

    @classmethod
    def of(cls, values: npt.NDArray[Any], end: float, bins: int) -> Histogram:
        counts, edges = np.histogram(values, bins, (0, end))
        return cls(edges.tolist(), counts.tolist())

    def bars(self) -> list[tuple[float, float, int, float]]:
        """Return from, to, count and height (a share of the highest) of every bar."""
        highest = max([*self.counts, 1])
        pairs = zip(self.edges, self.edges[1:], self.counts, strict=False)
        return [(start, end, count, count / highest) for start, end, count in pairs]


@dataclass(frozen=True)
class Packing:
    """How rows would fill packs."""

    capacity: int
    rows: int
    too_long: int
    """Rows that fit no pack. Training with --packing would stop at them."""
    packs: int
    fill: float
    fills: Histogram
    """Packs by the share of them that holds tokens."""


@dataclass(frozen=True)
class Kind:
    """The samples of one kind: a side of pairs, or a label."""

    name: str
    samples: int
    mean: float
    """Tokens of a sample."""
    most: int
    supervised: float
    """Tokens of a sample that are trained on, on average."""

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.samples:,} samples of {self.mean:,.1f} tokens, at most {self.most:,}; "
            f"{self.supervised:,.1f} are trained on"
        )


@dataclass(frozen=True)
class Findings:
    """The numbers of all samples that are used."""

    rows: int
    """Samples."""
    least: int
    most: int
    mean: float
    quantiles: dict[int, int]
    """Percent -> tokens that so many percent of the rows have at most."""
    lengths: Histogram
    shares: Histogram
    """Rows by the share of their tokens that is supervised."""
    packing: Packing
    kinds: list[Kind]
    """Where a row becomes a pair, its two sides; where it has a label, those with each."""

    @property
    def what(self) -> str:
        return "sample" if self.kinds else "row"

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them, without the histograms' bars."""
        lengths = {"min": self.least, **{f"p{percent}": n for percent, n in self.quantiles.items()}, "max": self.most}
        packing = asdict(self.packing)
        del packing["fills"]
        found = {"lengths": {**lengths, "mean": round(self.mean, 1)}, "packing": packing}
        rounded = [replace(one, mean=round(one.mean, 1), supervised=round(one.supervised, 1)) for one in self.kinds]
        return {**found, "kinds": [asdict(one) for one in rounded]}


def findings(
    lengths: Ints, counts: Ints, packed: Ints, capacity: int | None, kinds: Mapping[str, npt.NDArray[np.bool_]]
) -> Findings | None:
    """Sum up samples; None where there are none.

    lengths: (N,) tokens of each sample that is used; counts: (N,) those that are supervised; packed: lengths of the
    rows that packing would put together; capacity: tokens of a pack, None for as many as training would choose; kinds:
    (N,) for each kind of samples, which they are.
    """
    if not len(lengths):
        return None
    step = _round(float(lengths.max()) / BINS)
    bins = int(lengths.max() // step) + 1
    return Findings(
        rows=len(lengths),
        least=int(lengths.min()),
        most=int(lengths.max()),
        mean=float(lengths.mean()),
        quantiles=dict(zip(QUANTILES, _quantiles(lengths, QUANTILES), strict=True)),
        lengths=Histogram.of(lengths, bins * step, bins),
        shares=Histogram.of(counts / lengths, 1.0, 20),
        packing=_packing(packed, capacity or max(PACK, int(packed.max()))),
        kinds=[_kind(name, lengths[those], counts[those]) for name, those in kinds.items()],
    )


def _kind(name: str, lengths: Ints, counts: Ints) -> Kind:
    number = len(lengths)
    return Kind(
        name,
        number,
        float(lengths.sum()) / max(number, 1),
        int(lengths.max(initial=0)),
        float(counts.sum()) / max(number, 1),
    )


def _packing(lengths: Ints, capacity: int) -> Packing:
    fitting = lengths[lengths <= capacity]
    packs = pack(fitting, capacity)
    fills = Histogram.of(packs.tokens / capacity, 1.0, 20)
    return Packing(capacity, len(fitting), len(lengths) - len(fitting), len(packs), packs.fill, fills)


def _quantiles(values: Ints, percents: Iterable[int]) -> Sequence[int]:
    return [int(one) for one in np.percentile(values, list(percents), method="inverted_cdf")]


def _round(width: float) -> int:
    """Return the next number of 1, 2, 5, 10, 20, ... that is not below ``width``."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power >= width:
                return step * power
        power *= 10
