"""What can be refused before a row is read, for every trainer of preferences."""

from __future__ import annotations

from collections.abc import Iterable

from martlet import Run, UsageError
from martlet.errors import suggest
from martlet_data.args import DataArguments
from martlet_train.args import RlhfArguments, TrainerArguments

OF_TOKENS = ("label_smoothing_factor", "enable_channel_loss", "acc_strategy")
"""Flags of the training loop that only losses of tokens read."""


def check_run(run: Run, metrics: Iterable[str]) -> None:
    """Refuse a run without data, and one whose best checkpoint would be chosen by a metric that never comes."""
    data = run.config[DataArguments]
    if not (data.dataset or data.cached_dataset):
        raise UsageError(f"{run.command} needs data: give --dataset FILE, a dataset's name or a hub id.")
    known = ("loss", *metrics)
    metric = run.config[TrainerArguments].metric_for_best_model or "loss"
    if metric.removeprefix("eval_") not in known:
        hint = suggest(metric, known)
        raise UsageError(f"--metric_for_best_model {metric}: an evaluation brings no such metric. {hint}")
    for flag in OF_TOKENS:
        if is_given(run, flag):
            run.warn(f"--{flag} has no effect here: losses of preferences do not read it.")


def is_given(run: Run, flag: str) -> bool:
    """Tell whether a flag was set for this run, and not only by the checkpoint that it begins with."""
    return run.config.is_set(flag) and run.config.origin(flag).source != "args.json"


def beta_of(run: Run) -> float:
    """Return ``--beta``, which the losses of preferences multiply or divide by."""
    settings = run.config[RlhfArguments]
    if not settings.beta:
        raise UsageError(f"--beta {settings.beta}: {settings.rlhf_type} needs a number above 0.")
    return settings.beta
