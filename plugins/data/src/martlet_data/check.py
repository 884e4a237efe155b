"""``martlet data check``: read and encode datasets as training would, and say what comes of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from martlet.errors import DataError, UsageError
from martlet.protocols import Encoded

from .args import CheckArguments, DataArguments, ModeArguments
from .encoded import Arrays, EncodedDataset, grouped
from .findings import Findings, findings
from .ledger import Ledger, throughput
from .modes import IGNORED, Mode, mode_for
from .prepare import NONE_LEFT, encode, samples
from .preview import pieces
from .report import Facts, Report, Shown
from .selection import Part, check, parts_of

if TYPE_CHECKING:
    from martlet.run import Run

SHOWN = 1500
"""Tokens of a sample in the report."""


def main(run: Run) -> int:
    """Check the datasets. 0 when training could use them, else 1."""
    data, wanted = run.config[DataArguments], run.config[CheckArguments]
    if not (data.dataset or data.val_dataset or data.cached_dataset or data.cached_val_dataset):
        raise UsageError("data check needs data: give --dataset FILE, a dataset's name or a hub id.")
    if data.streaming:
        raise UsageError("data check reads every row before it says anything; leave out --streaming.")
    mode = mode_for(run, run.config[ModeArguments].template_mode)
    report = Report(wanted.report) if wanted.report is not None else None
    processor = run.one("models").load_processor(run)
    template = run.one("templates").bind(processor, run)
    began = time.perf_counter()
    parts = parts_of(run)
    arrays = encode(run, template, parts, mode)
    fault = ""
    try:
        ledger = check(run, parts, template.max_length)
    except DataError as error:
        fault = str(error)
        ledger = Ledger([part.ledger for part in parts], [drop for part in parts for drop in part.drops])
    totals = ledger.totals()
    if not (fault or totals["train"]) and (data.dataset or data.cached_dataset):
        fault = NONE_LEFT
    rows, share = totals["selected"], totals["supervised_share"]
    speed = throughput("Encoded", rows, totals["tokens"], share, time.perf_counter() - began)
    run.logger.info("%s", speed)
    used = {use: samples(run, parts, arrays, use, mode.group) for use in ("train", "eval")}
    capacity = wanted.packing_length or (template.max_length and mode.group * template.max_length)
    found = _found(parts, arrays, used, mode, capacity)
    if not wanted.json:
        print(_told(ledger, found, fault))
    if report:
        facts = Facts(
            run.config, ledger, found, _shown(used, processor, mode, wanted.n), template.max_length, speed, fault
        )
        for line in report.write(facts):
            print(line, file=sys.stderr if wanted.json else sys.stdout)
    if wanted.json:
        numbers: dict[str, Any] = {"usable": not fault, "fault": fault, **ledger.as_dict()}
        print(json.dumps(numbers | (found.as_dict() if found else {})))
    return 1 if fault else 0


def _found(
    parts: Sequence[Part], arrays: Sequence[Arrays], rows: dict[str, EncodedDataset], mode: Mode, capacity: int | None
) -> Findings | None:
    places = [
        (one, grouped(part.places(drawn, 0), mode.group))
        for part, one in zip(parts, arrays, strict=True)
        for drawn in (part.train, part.eval)
    ]
    none: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    lengths = np.concatenate(none + [np.diff(one.offsets)[at] for one, at in places])
    counts = np.concatenate(none + [one.counts[at] for one, at in places])
    firsts = [(one, at.tolist()[:: mode.group]) for one, at in places] if mode.kinds else []
    names = [name for one, at in firsts for row in at for name in mode.names(one.extras.get(row, {}))]
    packed = (rows["train"] if len(rows["train"]) else rows["eval"]).lengths.reshape(-1, mode.group).sum(axis=1)
    kinds = {kind: np.asarray([name == kind for name in names], bool) for kind in mode.kinds}
    return findings(lengths, counts, packed, capacity, kinds)


def _shown(rows: dict[str, EncodedDataset], processor: Any, mode: Mode, wanted: int) -> list[Shown]:
    """Return the samples of rows from all over the data, the first one included."""
    chosen = rows["train"] if len(rows["train"]) else rows["eval"]
    count, found = len(chosen) // mode.group, []
    for index in grouped(np.unique(np.arange(wanted) * count // wanted), mode.group).tolist() if count else ():
        one = chosen[index]
        kept = slice(SHOWN)
        weights = one.token_weights[kept].tolist() if one.token_weights is not None else None
        cut = Encoded(one.input_ids[kept].tolist(), one.labels[kept].tolist(), weights)
        supervised = int((one.labels != IGNORED).sum())
        place, text, hidden = chosen.origin(index), pieces(cut, processor), one.length - cut.length
        found.append(Shown(place, one.length, supervised, text, hidden, mode.names(one.extra)[index % mode.group]))
    return found


def _told(ledger: Ledger, found: Findings | None, fault: str) -> str:
    lines = [ledger.table()]
    if found:
        quantiles = "  ".join(f"{percent}% {tokens:,}" for percent, tokens in found.quantiles.items())
        packing = found.packing
        lines += [
            "",
            f"Tokens of a {found.what}: least {found.least:,}  {quantiles}  most {found.most:,}  mean "
            f"{found.mean:,.1f}",
            *(f"  {one}" for one in found.kinds),
            f"Packing: {packing.rows:,} rows fill {packing.packs:,} packs of {packing.capacity:,} tokens to "
            f"{packing.fill:.1%}",
        ]
        if packing.too_long:
            lines.append(f"  Rows longer than a pack: {packing.too_long:,}. --packing would stop at them.")
    lines += ["", f"Cannot be used. {fault}" if fault else "These datasets can be trained on."]
    return "\n".join(lines)
