"""Cached datasets: encoded once by ``martlet export --to_cached_dataset true``, and drawn from like any other dataset.

A folder holds the standard rows (``rows.jsonl``), their samples as flat arrays, and an index that says what they were
made with. Row ``k`` became sample ``k``; with the mode ``rlhf``, samples ``2k`` (chosen) and ``2k + 1`` (rejected).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.errors import UsageError
from martlet.protocols import Encoded, Refused

from .cached_folders import ROWS, folder_of, mode_of
from .encoded import Arrays, Ints, grouped
from .facts import Unknown, differences, facts_of
from .modes import SIDES, Mode, cut_alike, fault, of_side, strategy_of, without_prompt
from .opening import Opened, open_dataset
from .references import parse
from .stored import Damaged, Encoding, read, read_index
from .work import Chunk, Drop, length_of

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run

    from .selection import Part

_COMPARED = ("settings", "options", "components", "tokenizer", "rendering")
_FREE = ("max_length", "truncation_strategy", "response_prefix")
"""Settings that may change between export and training."""


@dataclass
class CachedDataset(Opened):
    """A cached dataset: its rows can be read, and their samples are there."""

    folder: Path


def open_cached(run: Run, text: str, flag: str) -> CachedDataset:
    """Open what one entry of --cached_dataset names. ``UsageError`` where it is none."""
    folder = folder_of(text, flag)
    count = parse(text, flag).count
    opened = open_dataset(run, str(folder / ROWS), flag, None)
    return CachedDataset(text, count, opened.table, opened.files, opened.converter, folder)


def read_cached(run: Run, template: BoundTemplate, part: Part, mode: Mode) -> Encoding:
    """Return the samples of the drawn rows. Rows longer than --max_length are dropped or cut, as the flags say.

    ``UsageError`` when it was made for another mode, or with another model or template, naming what differs.
    """
    opened = part.opened
    if not isinstance(opened, CachedDataset):
        raise TypeError(f"{opened.label} is no cached dataset")
    flag = "--cached_dataset" if part.ledger.role == "train" else "--cached_val_dataset"
    where = f"{flag} {opened.label}"
    if (written := mode_of(opened.folder)) != mode.name:
        scale = next((f" --loss_scale {value}" for found, value, _ in run.config if found.name == "loss_scale"), "")
        raise UsageError(
            f"{where}: it was written with --template_mode {written}; {run.command} takes {mode.name}. Write one with: "
            f"martlet export --to_cached_dataset true --template_mode {mode.name}{scale}"
        )
    strategy = strategy_of(run)
    if strategy == "split":
        raise UsageError(f"{where}: --truncation_strategy split does not go with it; use delete, left or right.")
    try:
        _compare(where, comparable(facts_of(run, template)), read_index(opened.folder)["facts"])
        stored = read(opened.folder)
    except Damaged as error:
        raise UsageError(f"{where}: {error}; export it anew.") from error
    except Unknown as error:
        raise UsageError(f"{where}: it cannot be told whether it fits, because {error}.") from error
    if len(stored.arrays) != mode.group * len(opened.table):
        rows = len(stored.arrays) // mode.group
        raise UsageError(f"{where}: {ROWS} holds {len(opened.table)} rows, not {rows}; export it anew.")
    return _drawn(stored.arrays, part.needed, template.max_length, strategy, mode)


def comparable(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that must be the same when a cached dataset is made and when it is used."""
    settings = {name: value for name, value in facts["settings"].items() if name not in _FREE}
    text = json.dumps({**{name: facts[name] for name in _COMPARED}, "settings": settings}, default=repr)
    found: dict[str, Any] = json.loads(text)
    return found


def _compare(where: str, now: dict[str, Any], then: dict[str, Any]) -> None:
    if found := differences(then, now):
        raise UsageError(
            f"{where}: it was made with another model or template than this run's: {'; '.join(found)}. "
            "Use the same, or export the dataset anew."
        )


def _drawn(arrays: Arrays, rows: Ints, limit: int | None, strategy: str, mode: Mode) -> Encoding:
    """Return the samples of some rows."""
    group = mode.group
    wanted = grouped(rows, group)
    lengths = np.diff(arrays.offsets)[wanted]
    excess = np.maximum(lengths - limit, 0) if limit is not None else np.zeros_like(lengths)
    drops: list[Drop] = []
    for place in np.flatnonzero(excess.reshape(-1, group).any(axis=1)).tolist():
        mine = slice(place * group, (place + 1) * group)
        if strategy == "delete":
            refused: Refused | None = _too_long(lengths[mine].tolist(), limit)
        else:
            if group > 1 and strategy == "left":
                chosen, rejected = map(arrays.tokens, wanted[mine].tolist())
                excess[mine] = cut_alike(chosen, rejected, int(limit or 0))
            cut = arrays.rows(wanted[mine], excess[mine], strategy)
            refused = fault([_as_encoded(cut, at) for at in range(group)])
            if mode.needs_prompt and strategy == "left":
                whole = arrays.sample(int(wanted[place]))
                refused = without_prompt(whole.labels, int(excess[place])) or refused
        if refused:
            drops.append(Drop(place, int(rows[place]) + 1, refused.reason, refused.detail, length_of(refused)))
    used = np.ones(len(rows), bool)
    used[[drop.position for drop in drops]] = False
    kept = np.repeat(used, group)
    whole = kept.sum() == len(arrays) and not excess.any()
    found = arrays if whole else arrays.rows(wanted[kept], excess[kept], strategy)
    return Encoding(found, Chunk([1] * len(rows), np.flatnonzero(used).tolist(), drops, Counter({"cached": len(rows)})))


def _too_long(lengths: list[int], limit: int | None) -> Refused:
    """Say which sample of a row is too long, in the words of a template."""
    at = next(at for at, length in enumerate(lengths) if limit is not None and length > limit)
    detail = f"{lengths[at]} tokens; --max_length is {limit}"
    return Refused("too long", detail if len(lengths) == 1 else of_side(SIDES[at], detail))


def _as_encoded(arrays: Arrays, row: int) -> Encoded:
    one = arrays.sample(row)
    weights = None if one.token_weights is None else one.token_weights.tolist()
    return Encoded(one.input_ids.tolist(), one.labels.tolist(), weights)
