"""Trainers: ``(run) -> TrainResult``."""

from __future__ import annotations

import json
import math

from martlet.protocols import TrainResult
from martlet.specs import Trainer

from .base import require
from .kit import CONVERSATION, Kit
from .losses import CONTRACTS


def check_contracts(kit: Kit, spec: Trainer) -> None:
    """It says which kinds of loss it takes."""
    good = isinstance(spec.contracts, tuple) and all(name in CONTRACTS for name in spec.contracts)
    require(good, f"contracts is {spec.contracts!r}; write a tuple of {', '.join(CONTRACTS)}.")


def check_trains_two_steps(kit: Kit, spec: Trainer) -> None:
    """Two steps on four conversations: finite metrics, a checkpoint, and the folder that it says."""
    rows = kit.folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"messages": CONVERSATION}) + "\n" for _ in range(4)), encoding="utf-8")
    run = kit.run(
        *("model", "template", "data", "train", "tuner"),
        select=spec,
        model=str(kit.model_folder),
        dataset=[str(rows)],
        output_dir=str(kit.folder / "trained"),
        max_steps=2,
    )
    result = kit.build(spec)(run)
    require(isinstance(result, TrainResult), f"it returned {type(result).__name__}, not TrainResult.")
    require(result.folder.is_dir(), f"TrainResult.folder is {result.folder}, which does not exist.")
    bad = {name: value for name, value in result.metrics.items() if not math.isfinite(value)}
    require(not bad, f"metrics that are not finite: {bad}.")
    require(result.checkpoint is not None and result.checkpoint.is_dir(), "after two steps there is no checkpoint.")


CHECKS = (check_contracts, check_trains_two_steps)
