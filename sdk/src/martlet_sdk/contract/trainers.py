"""Trainers: ``(run) -> TrainResult``."""

from __future__ import annotations

import json
import math

from martlet.protocols import TrainResult
from martlet.specs import Command, Trainer

from .base import require
from .kit import CONVERSATION, Kit
from .losses import CONTRACTS


def check_contracts(kit: Kit, spec: Trainer) -> None:
    """It says which kinds of loss it takes."""
    good = isinstance(spec.contracts, tuple) and all(name in CONTRACTS for name in spec.contracts)
    require(good, f"contracts is {spec.contracts!r}; write a tuple of {', '.join(CONTRACTS)}.")


def check_trains_two_steps(kit: Kit, spec: Trainer) -> None:
    """Two steps on four conversations, each with a worse answer and a label: finite metrics, a checkpoint, a folder."""
    rows = kit.folder / "rows.jsonl"
    compared = {"messages": CONVERSATION, "rejected_response": "Grass is blue."}
    lines = (json.dumps({**compared, "label": number % 2 == 0}) + "\n" for number in range(4))
    rows.write_text("".join(lines), encoding="utf-8")
    commands = [command for _, command in kit.manager.specs(Command) if command.name == spec.command]
    run = kit.run(
        *(commands[0].roles if commands else ("model", "template", "data", "train", "tuner")),
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
