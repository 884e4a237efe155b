"""From --dataset to encoded samples, with every row accounted for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from martlet.errors import DataError, UsageError

from .args import DataArguments
from .encoded import Arrays, EncodedDataset, Store
from .ledger import Ledger
from .selection import Part, check, parts_of, shuffled
from .work import Work
from .workers import cut, run_tasks

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run

Ints = npt.NDArray[np.int64]


@dataclass
class Prepared:
    """The samples of a run."""

    train: EncodedDataset
    eval: EncodedDataset | None
    """None when neither --val_dataset nor --split_dataset_ratio is given."""
    ledger: Ledger
    fingerprint: str
    """SHA-256 over both datasets; equal for equal samples in equal order."""


def prepare(run: Run, template: BoundTemplate) -> Prepared:
    """Read, check, split, shuffle and encode what --dataset and --val_dataset name.

    Shows a progress bar when it takes more than two seconds, logs the ledger and the throughput, notes ledger and
    fingerprint in ``run.json`` and, when ``run.folder`` is set, writes ``ledger.json`` and ``dropped.jsonl`` there
    (rank 0). Raises ``UsageError`` without a --dataset, and ``DataError`` for a bad row under --strict, when more
    than --max_dropped of a dataset's rows had to be dropped, or when a dataset has nothing left to use.
    """
    if not run.config[DataArguments].dataset:
        raise UsageError(f"{run.command} needs data: give --dataset FILE, a dataset's name or a hub id.")
    began = time.perf_counter()
    parts = parts_of(run)
    stores = _encode(run, template, parts)
    ledger = check(run, parts, template.max_length)
    train = _joined(run, parts, stores, "train")
    if not len(train):
        raise DataError("No row is left to train on; lower --split_dataset_ratio or give more rows.")
    evaluation = _joined(run, parts, stores, "eval")
    _count_tokens(parts, stores)
    text = train.fingerprint + (evaluation.fingerprint if len(evaluation) else "")
    prepared = Prepared(
        train, evaluation if len(evaluation) else None, ledger, hashlib.sha256(text.encode()).hexdigest()
    )
    _report(run, prepared, time.perf_counter() - began)
    return prepared


def _encode(run: Run, template: BoundTemplate, parts: Sequence[Part]) -> dict[str, Arrays]:
    """Encode every row that is needed. Rows of --dataset and of --val_dataset are stored apart."""
    data = run.config[DataArguments]
    works = [Work(p.opened.table, p.opened.converter, template, not data.remove_unused_columns) for p in parts]
    tasks = [(k, piece) for k, part in enumerate(parts) for piece in cut(part.needed.tolist(), data.dataset_num_proc)]
    stores = {"train": Store(), "eval": Store()}
    bases = []
    for part in parts:
        sources = stores[part.ledger.role].sources
        bases.append(len(sources))
        sources += [(part.opened.label, file) for file in part.opened.files]
    for (number, _), chunk in zip(tasks, run_tasks(run, works, tasks, processes=data.dataset_num_proc), strict=True):
        part = parts[number]
        files = part.absorb(chunk, strict=data.strict)
        part.opened.converter.renamed |= chunk.renamed
        if chunk.block is not None:
            chunk.block.files = [bases[number] + file for file in files]
            stores[part.ledger.role].append(chunk.block)
    return {role: store.close() for role, store in stores.items()}


def _joined(run: Run, parts: Sequence[Part], stores: dict[str, Arrays], use: str) -> EncodedDataset:
    """Return the samples that are used to ``train`` or to ``eval``, in their final order."""
    role = "eval" if use == "eval" and any(part.ledger.role == "eval" for part in parts) else "train"
    places = [part.places(getattr(part, use), base) for part, base in _bases(parts, role)]
    joined = np.concatenate(places) if places else np.zeros(0, np.int64)
    return EncodedDataset(stores[role], shuffled(joined, run, use))


def _bases(parts: Sequence[Part], role: str) -> list[tuple[Part, int]]:
    """Pair each dataset of a role with the place of its first row in the role's store."""
    mine = [part for part in parts if part.ledger.role == role]
    ends = np.cumsum([0, *(int(part.used.sum()) for part in mine)]).tolist()
    return list(zip(mine, ends, strict=False))


def _count_tokens(parts: Sequence[Part], stores: dict[str, Arrays]) -> None:
    """Fill in the mask ledger: tokens, and those that are trained on."""
    for role, arrays in stores.items():
        lengths, supervised = np.diff(arrays.offsets), arrays.counts
        for part, base in _bases(parts, role):
            for drawn in (part.train, part.eval):
                places = part.places(drawn, base)
                part.ledger.tokens += int(lengths[places].sum())
                part.ledger.supervised_tokens += int(supervised[places].sum())


def _report(run: Run, prepared: Prepared, seconds: float) -> None:
    ledger = prepared.ledger
    totals = ledger.totals()
    run.note("data", {"fingerprint": prepared.fingerprint, **ledger.as_dict()})
    if run.process.rank:
        return
    if run.folder is not None:
        ledger.write(run.folder)
    rows = totals["selected"]
    run.logger.info("Datasets\n%s", ledger.table())
    run.logger.info(
        "Encoded %s rows in %.1f s: %s rows/s, %s tokens/s, %.1f %% of the tokens supervised",
        f"{rows:,}",
        seconds,
        f"{rows / max(seconds, 1e-9):,.0f}",
        f"{totals['tokens'] / max(seconds, 1e-9):,.0f}",
        100 * totals["supervised_share"],
    )
