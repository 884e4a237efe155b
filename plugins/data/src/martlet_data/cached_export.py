"""``martlet export --to_cached_dataset true``: encode the rows of a command's datasets and write them to a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.errors import DataError, UsageError

from .args import DataArguments
from .cached_dataset import comparable
from .cached_folders import ROWS
from .encoded import Arrays, Block, EncodedDataset, Store, grouped
from .facts import Unknown, facts_of
from .ledger import Ledger
from .modes import IGNORED, Mode, mode_for, strategy_of
from .prepare import count_tokens, encode_with, used_by
from .rows import Row
from .selection import Part, check, parts_of
from .stored import Encoding, write
from .work import Chunk, work_on

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run

Facts = dict[str, Any]
FOLDERS = {"train": "train", "eval": "val"}


def write_cached_dataset(run: Run, template: BoundTemplate, folder: Path, mode: str) -> Ledger:
    """Encode --dataset and --val_dataset into ``folder/train`` and ``folder/val``; return the ledger.

    Samples stand in file order, for training to shuffle. The ledger's files are written as well. Errors are those of
    ``prepare``, and ``UsageError`` for flags that a cached dataset cannot keep.
    """
    data = run.config[DataArguments]
    _check(run, data)
    try:
        facts = comparable(facts_of(run, template))
    except Unknown as error:
        raise UsageError(f"--to_cached_dataset: what the samples are made with cannot be recorded, {error}.") from error
    wanted, parts = mode_for(run, mode), parts_of(run)
    works = [work_on(run, p.opened.table, p.opened.converter, template, wanted, keep_rows=True) for p in parts]
    encodings = encode_with(run, works, parts)
    for part, one in zip(parts, encodings, strict=True):
        count_tokens(part, one.arrays, wanted.group)
    ledger = check(run, parts, template.max_length)
    for use, name in FOLDERS.items():
        _write(folder / name, parts, encodings, use, wanted, facts)
    ledger.write(folder)
    run.logger.info("Datasets\n%s", ledger.table())
    return ledger


def _check(run: Run, data: DataArguments) -> None:
    if not (data.dataset or data.val_dataset):
        raise UsageError(f"{run.command} needs data: give --dataset FILE, a dataset's name or a hub id.")
    if data.cached_dataset or data.cached_val_dataset:
        raise UsageError("--to_cached_dataset: a --cached_dataset is one already; name what to encode with --dataset.")
    if data.streaming:
        raise UsageError("--to_cached_dataset: a stream has no end that could be written; drop --streaming.")
    if strategy_of(run) == "split":
        raise UsageError("--to_cached_dataset: --truncation_strategy split does not go with it; leave it out.")


def _write(
    folder: Path, parts: Sequence[Part], encodings: Sequence[Encoding], use: str, mode: Mode, facts: Facts
) -> None:
    """Write the samples to ``train`` or to ``eval`` on, if there are any."""
    mine = used_by(parts, encodings, use)
    order = np.concatenate([part.places(getattr(part, use), start) for part, _, start in mine])
    if not len(order):
        return
    folder.mkdir(parents=True)
    rows = [row for _, one, _ in mine for row in one.outcome.rows]
    with (folder / ROWS).open("w", encoding="utf-8") as file:
        for place in order.tolist():
            file.write(_line(rows[place]) + "\n")
    arrays = _gathered(EncodedDataset([one.arrays for _, one, _ in mine], grouped(order, mode.group)))
    try:
        write(folder, Encoding(arrays, Chunk([])), facts, mode=mode.name)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"--to_cached_dataset: {error}. Leave those columns out: --remove_unused_columns true."
        ) from error


def _line(row: Row) -> str:
    try:
        return json.dumps(row, allow_nan=False)
    except (TypeError, ValueError) as error:
        columns = ", ".join(sorted(map(str, row)))
        raise DataError(
            f"--to_cached_dataset: a row with the columns {columns} cannot be written as JSON ({error})."
        ) from error


def _gathered(samples: EncodedDataset) -> Arrays:
    """Copy samples behind one another, in their order."""
    origins = [samples.origin(index) for index in range(len(samples))]
    numbers = {source: number for number, source in enumerate(dict.fromkeys((o.dataset, o.file) for o in origins))}
    store = Store(list(numbers))
    for sample, origin in zip(samples, origins, strict=True):
        supervised = sample.labels != IGNORED
        weights = sample.token_weights
        store.append(
            Block(
                ids=sample.input_ids.tobytes(),
                supervised=supervised.tobytes(),
                counts=[int(supervised.sum())],
                lengths=[sample.length],
                weights=b"" if weights is None else weights.tobytes(),
                weighted=[] if weights is None else [0],
                extras=[sample.extra],
                files=[numbers[origin.dataset, origin.file]],
                lines=[origin.line],
            )
        )
    return store.close()
