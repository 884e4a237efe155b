"""From --dataset to encoded samples, with every row accounted for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from martlet.errors import DataError, UsageError

from .args import DataArguments
from .cache import Cache
from .cached_dataset import CachedDataset, read_cached
from .encoded import Arrays, EncodedDataset, Store, grouped
from .ledger import Ledger, throughput
from .modes import Mode, mode_for
from .selection import Part, check, ordered, parts_of
from .stored import Encoding
from .work import Chunk, Work, work_on
from .workers import absorbed

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run

    from .lazy import LazyDataset
    from .stream import SampleStream

Ints = npt.NDArray[np.int64]
T = TypeVar("T")

NONE_LEFT = "No row is left to train on; lower --split_dataset_ratio or give more rows."


@dataclass
class Prepared:
    """The samples of a run."""

    train: EncodedDataset | LazyDataset | SampleStream
    """A stream with --streaming; encoded when fetched with --lazy_tokenize."""
    eval: EncodedDataset | LazyDataset | None
    """None when neither --val_dataset nor --split_dataset_ratio is given."""
    ledger: Ledger
    fingerprint: str
    """SHA-256 over both datasets; equal for equal samples in equal order. Of a stream: over its files' sizes."""
    group: int = 1
    """Samples of a row. 2 with mode ``rlhf``: sample 2k is the chosen conversation of row k, 2k + 1 the rejected."""
    finish: Callable[[], None] = lambda: None
    """To be called when training has ended, in whatever way: complete the ledger, where rows were encoded meanwhile."""
    save: Callable[[Path], None] = lambda folder: None
    """Write into a checkpoint what was found out about rows since the start."""
    restore: Callable[[Path], None] = lambda folder: None
    """Take that up again."""
    share: Callable[[Callable[[bytes], list[bytes]]], None] = lambda gather: None
    """Tell the other processes of a run what was found out about rows, and learn what they know. All of them call it,
    with a function that returns everyone's bytes."""


def prepare(run: Run, template: BoundTemplate, *, lazy: bool = False, mode: str = "train") -> Prepared:
    """Read, check, split, shuffle and encode what --dataset, --val_dataset and their cached kin name.

    Shows a progress bar when it takes more than two seconds, logs the ledger and the throughput, notes ledger and
    fingerprint in ``run.json`` and, when ``run.folder`` is set, writes ``ledger.json`` and ``dropped.jsonl`` there
    (rank 0). Raises ``UsageError`` without a --dataset, and ``DataError`` for a bad row under --strict, when more
    than --max_dropped of a dataset's rows had to be dropped, or when a dataset has nothing left to use.

    lazy: encode rows when they are fetched.
    mode: what rows are encoded for. ``train``: one sample a row. ``rlhf``: a chosen and a rejected conversation each;
    rows without are dropped, and so are those where the two are the same tokens; both keep the row's ``margin``.
    ``kto``: one sample with ``label``, true or false, in ``extra``; rows without are dropped.
    """
    data = run.config[DataArguments]
    if not (data.dataset or data.cached_dataset):
        raise UsageError(f"{run.command} needs data: give --dataset FILE, a dataset's name or a hub id.")
    wanted = mode_for(run, mode)
    if data.streaming:
        from .stream import prepare_stream

        return prepare_stream(run, template, wanted)
    if lazy:
        from .lazy import prepare_lazy

        return prepare_lazy(run, template, wanted)
    began = time.perf_counter()
    parts = parts_of(run)
    arrays = encode(run, template, parts, wanted)
    ledger = check(run, parts, template.max_length)
    train, evaluation = (samples(run, parts, arrays, use, wanted.group) for use in ("train", "eval"))
    if not len(train):
        raise DataError(NONE_LEFT)
    text = train.fingerprint + (evaluation.fingerprint if len(evaluation) else "")
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    prepared = Prepared(train, evaluation if len(evaluation) else None, ledger, fingerprint, wanted.group)
    _report(run, prepared, time.perf_counter() - began)
    return prepared


def encode(run: Run, template: BoundTemplate, parts: Sequence[Part], mode: Mode) -> list[Arrays]:
    """Return the samples of each dataset, and fill in its ledger.

    They come from a cached dataset, from the cache, or are encoded now.
    """
    data = run.config[DataArguments]
    cache = Cache.of(run, template, mode)
    places = [cache.place(part) if cache and not isinstance(part.opened, CachedDataset) else None for part in parts]
    with cache.turn(places) if cache else nullcontext():
        known: list[Encoding | None] = []
        for part, place in zip(parts, places, strict=True):
            if isinstance(part.opened, CachedDataset):
                found: Encoding | None = read_cached(run, template, part, mode)
            else:
                found = cache.load(part, place) if cache else None
            if found is not None:
                part.absorb(found.outcome, strict=data.strict)
            known.append(found)
        todo = [part for part, one in zip(parts, known, strict=True) if one is None]
        works = [work_on(run, part.opened.table, part.opened.converter, template, mode) for part in todo]
        new = iter(encode_with(run, works, todo, cache.get_on if cache else _nothing))
        arrays = []
        for part, place, one in zip(parts, places, known, strict=True):
            encoding = one or next(new)
            if one is None and cache:
                cache.get_on()
                cache.save(part, place, encoding)
            part.opened.converter.renamed |= encoding.outcome.renamed
            count_tokens(part, encoding.arrays, mode.group)
            arrays.append(encoding.arrays)
    return arrays


def _nothing() -> None:
    pass


def encode_with(
    run: Run, works: Sequence[Work], parts: Sequence[Part], get_on: Callable[[], None] = _nothing
) -> list[Encoding]:
    """Encode every row that is needed of some datasets, all at once, and say what became of each.

    ``get_on`` is called whenever some more are encoded.
    """
    stores, outcomes = [Store(part.sources) for part in parts], [Chunk([]) for _ in parts]
    for number, chunk, files in absorbed(run, works, parts):
        get_on()
        outcomes[number].extend(chunk, parts[number].done - len(chunk.made))
        if chunk.block is not None:
            chunk.block.files = np.repeat(files, works[number].mode.group).tolist()
            stores[number].append(chunk.block)
    return [Encoding(store.close(), outcome) for store, outcome in zip(stores, outcomes, strict=True)]


def samples(run: Run, parts: Sequence[Part], arrays: Sequence[Arrays], use: str, group: int) -> EncodedDataset:
    """Return the samples that are used to ``train`` or to ``eval``, in their final order."""
    mine = used_by(parts, arrays, use)
    rows = ordered(run, [(part, start) for part, _, start in mine], use)
    return EncodedDataset([one for _, one, _ in mine], grouped(rows, group))


def used_by(parts: Sequence[Part], encoded: Sequence[T], use: str) -> list[tuple[Part, T, int]]:
    """Return the datasets that are used to ``train`` or to ``eval``, each with the place of its first row."""
    role = "eval" if use == "eval" and any(part.ledger.role == "eval" for part in parts) else "train"
    mine = [(part, one) for part, one in zip(parts, encoded, strict=True) if part.ledger.role == role]
    starts = accumulate((int(part.used.sum()) for part, _ in mine), initial=0)
    return [(part, one, start) for (part, one), start in zip(mine, starts, strict=False)]


def count_tokens(part: Part, arrays: Arrays, group: int) -> None:
    """Fill in the mask ledger: tokens, and those that are trained on."""
    lengths = np.diff(arrays.offsets)
    for drawn in (part.train, part.eval):
        places = grouped(part.places(drawn, 0), group)
        part.ledger.tokens += int(lengths[places].sum())
        part.ledger.supervised_tokens += int(arrays.counts[places].sum())


def _report(run: Run, prepared: Prepared, seconds: float) -> None:
    ledger = prepared.ledger
    totals = ledger.totals()
    run.note("data", {"fingerprint": prepared.fingerprint, **ledger.as_dict()})
    if run.process.rank:
        return
    if run.folder is not None:
        ledger.write(run.folder)
    run.logger.info("Datasets\n%s", ledger.table())
    share = totals["supervised_share"]
    run.logger.info(throughput("Prepared", totals["selected"], totals["tokens"], share, seconds))
