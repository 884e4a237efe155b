"""Alignment: the trainer that ``--rlhf_type`` names."""

from __future__ import annotations

from typing import cast

from martlet import Run, Trainer, UsageError
from martlet.protocols import TrainResult

from .resolve import algorithms
from .sft import check_losses


def main(run: Run) -> TrainResult:
    """Run the trainer of ``--rlhf_type``. Command ``rlhf``."""
    trainer = cast(Trainer, run.selected(Trainer)[0])
    if trainer.command != run.command:
        known = algorithms(run.manager, run.command)
        raise UsageError(f"--rlhf_type {trainer.name}: that is no algorithm of {run.command}; use {', '.join(known)}.")
    check_losses(run, trainer)
    result: TrainResult = run.one(Trainer)(run)
    return result
