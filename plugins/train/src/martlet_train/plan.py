"""What ``martlet plan`` says about a training run: steps, parameters, files. Loads no weights and encodes no row."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import MartletError, Model, Run, Tuner
from martlet_data.api import Counts, count_rows
from martlet_data.args import DataArguments

from .args import RlhfArguments, TrainArguments, TrainerArguments
from .memory import memory
from .output import choose_folder
from .resolve import world_size

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainingArguments

Unknown = dict[str, str]


def plan(run: Run) -> dict[str, Any]:
    """Return the facts; what was not computed is ``{"unknown": why}``."""
    from .training_arguments import training_arguments

    args = training_arguments(run, choose_folder(run), start=False)
    rows = _rows(run)
    steps = _steps(run, rows)
    model = _model(run)
    return {
        "rows": {"train": rows.train, "eval": rows.eval} if isinstance(rows, Counts) else rows,
        "rows_per_step": _rows_per_step(run),
        "steps": steps,
        "parameters": model if isinstance(model, dict) else _parameters(model),
        "memory": model if isinstance(model, dict) else _memory(run, model, args),
        **_reference(run),
        "memory_of_activations": _unknown(
            "it depends on the rows of a batch and the kernels; the log shows what a step takes"
        ),
        "files": _files(run, steps),
    }


def _unknown(why: str) -> Unknown:
    return {"unknown": why}


def _rows(run: Run) -> Counts | Unknown:
    data = run.config[DataArguments]
    if data.streaming:
        return _unknown("with --streaming true rows are counted when they are read")
    for text in [*data.dataset, *data.val_dataset]:
        if not any(os.path.exists(part) for part in (text, text.split("#")[0], text.split("#")[0].rpartition(":")[0])):
            return _unknown(f"{text} is not a local file, and nothing is downloaded for a plan")
    try:
        return count_rows(run)
    except MartletError as error:
        return _unknown(str(error))


def _rows_per_step(run: Run) -> int | Unknown:
    flags = run.config[TrainerArguments]
    if run.config[TrainArguments].packing:
        return _unknown("with --packing it depends on their lengths")
    return flags.per_device_train_batch_size * (flags.gradient_accumulation_steps or 1) * world_size(run.config)


def _steps(run: Run, rows: Counts | Unknown) -> int | Unknown:
    flags = run.config[TrainerArguments]
    if flags.max_steps > 0:
        return flags.max_steps
    if run.config[TrainArguments].packing:
        return _unknown("with --packing it depends on the rows' lengths, which are known once they are encoded")
    if not isinstance(rows, Counts):
        return rows
    together = flags.per_device_train_batch_size * world_size(run.config)
    batches = rows.train // together if flags.dataloader_drop_last else math.ceil(rows.train / together)
    in_epoch = max(math.ceil(batches / (flags.gradient_accumulation_steps or 1)), 1)
    epochs = min(flags.num_train_epochs, flags.max_epochs or math.inf)
    return math.ceil(epochs * in_epoch)


def _model(run: Run) -> nn.Module | Unknown:
    """Build the model without memory and let the tuner choose what is trained."""
    try:
        model: nn.Module = run.one(Tuner).apply(run.one(Model).skeleton(run), run)
    except (MartletError, NotImplementedError, RuntimeError) as error:
        return _unknown(f"the model could not be laid out without its weights ({error})")
    return model


def _memory(run: Run, model: nn.Module, args: TrainingArguments) -> dict[str, Any]:
    flags = run.config[TrainerArguments]
    for flag, value in (("deepspeed", flags.deepspeed), ("fsdp", flags.fsdp)):
        if value:
            return _unknown(f"--{flag} {value} divides it over the processes; without it, each holds all")
    return memory(run, model, args)


def _reference(run: Run) -> dict[str, Unknown]:
    """Say what ``memory`` leaves out where a command may compare with a second model."""
    if RlhfArguments not in run.config:
        return {}
    why = "an algorithm with a reference holds its weights too, unless it is the model with another adapter or none"
    return {"memory_of_reference": _unknown(why)}


def _parameters(model: nn.Module) -> dict[str, Any]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(size for size, _ in sizes), sum(size for size, chosen in sizes if chosen)
    return {"total": total, "trained": trained, "share": round(trained / max(total, 1), 6)}


def _files(run: Run, steps: int | Unknown) -> list[str]:
    flags, ours = run.config[TrainerArguments], run.config[TrainArguments]
    folder = choose_folder(run)
    if ours.add_version:  # the time is another one when it runs
        folder = folder.parent / (folder.name.split("-")[0] + "-DATE-TIME")
    names = ["args.json", "run.json", "ledger.json", "dropped.jsonl", "logging.jsonl", "images/"]
    if {"tensorboard", "all"} & set(flags.report_to):
        names.append(flags.logging_dir or "runs/")
    if flags.save_strategy != "no":
        names += [*_checkpoints(flags, steps), *(["last"] if ours.create_checkpoint_symlink else [])]
        if flags.eval_strategy not in (None, "no") and ours.create_checkpoint_symlink:
            names.append("best")
    return [str(Path(folder, name)) + ("/" if name.endswith("/") else "") for name in names]


def _checkpoints(flags: TrainerArguments, steps: int | Unknown) -> list[str]:
    if not isinstance(steps, int):
        return ["checkpoint-N/"]
    if flags.save_strategy == "epoch":
        return ["checkpoint-N/ (one an epoch)"]
    every = max(1, math.ceil(flags.save_steps * steps) if flags.save_steps < 1 else int(flags.save_steps))
    at = [*range(every, steps, every), steps]
    at = at[-flags.save_total_limit :] if flags.save_total_limit else at
    named = [f"checkpoint-{step}/" for step in at]
    return named if len(named) <= 6 else [*named[:2], f"... ({len(named)} checkpoints)", *named[-2:]]
