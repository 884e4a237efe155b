"""From Martlet's flags to ``transformers.TrainingArguments``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, get_scheduler
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from martlet import Run, UsageError
from martlet.errors import suggest
from martlet_data.args import DataArguments

from . import deepspeed, fsdp
from .args import TrainerArguments
from .optimizer_settings import try_optimizer
from .reporting import other_reports
from .resolve import world_size

OURS = {
    "bf16", "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory",
    "dataloader_prefetch_factor", "deepspeed", "fp16", "fsdp", "gradient_checkpointing",
    "gradient_checkpointing_kwargs", "hub_model_id", "hub_private_repo", "neftune_noise_alpha", "output_dir",
    "push_to_hub", "report_to", "resume_from_checkpoint", "save_total_limit", "use_cpu", "warmup_steps",
}  # fmt: skip
"""Flags of one name that are not handed over as they are."""


def training_arguments(run: Run, folder: Path, *, start: bool = True) -> TrainingArguments:
    """Check the flags and translate them; ``UsageError`` for what transformers refuses. Writes nothing.

    ``start``: let DeepSpeed or FSDP take part, where they are asked for.
    """
    flags = run.config[TrainerArguments]
    _check_names(flags)
    theirs = {item.name for item in dataclasses.fields(TrainingArguments)}
    same = {item.name for item in dataclasses.fields(flags)} & theirs - OURS
    values: dict[str, Any] = {name: getattr(flags, name) for name in same}
    values |= {
        "output_dir": str(folder),
        "seed": run.seed,
        "data_seed": run.config[DataArguments].data_seed,
        "warmup_steps": flags.warmup_steps or flags.warmup_ratio,
        "activation_checkpointing": flags.gradient_checkpointing,
        "activation_checkpointing_kwargs": flags.gradient_checkpointing_kwargs,
        "neftune_noise_alpha": flags.neftune_noise_alpha or None,
        "report_to": other_reports(flags.report_to),
        "use_cpu": flags.use_cpu or not torch.accelerator.is_available(),
        "remove_unused_columns": False,
        "disable_tqdm": True,
        # It would make every step wait for the device; a loss that is no number is reported when it is logged.
        "logging_nan_inf_filter": False,
    }
    if flags.save_strategy != "steps":
        values["save_steps"] = 500
    if start:
        here = {"cpu": values["use_cpu"], "processes": run.process.world_size}
        values |= fsdp.start(flags, **here) | deepspeed.start(flags, **here)
    if world_size() == 1:
        values["ddp_backend"] = None  # transformers would look for the other processes
    try:
        args = TrainingArguments(**values)
    except (TypeError, ValueError, ImportError) as error:
        raise UsageError(f"{run.command}: {' '.join(str(error).split())}") from error
    deepspeed.load_whole(args)
    _try_schedule(args)
    try_optimizer(args)
    args._n_gpu = min(args.n_gpu, 1)  # several GPUs in one process: never nn.DataParallel, which splits batches anew
    return args


def _check_names(flags: TrainerArguments) -> None:
    from transformers.integrations import integration_utils as trackers

    for name in other_reports(flags.report_to):
        known = trackers.INTEGRATION_TO_CALLBACK
        if name not in known:
            raise UsageError(f"--report_to {name}: there is none of that name. {suggest(name, known)}")
        if name not in trackers.get_available_reporting_integrations():
            raise UsageError(f"--report_to {name}: its package is not installed; try `pip install {name}`.")
    for flag, value, known in (
        ("optim", flags.optim, [one.value for one in OptimizerNames]),
        ("lr_scheduler_type", flags.lr_scheduler_type, [one.value for one in SchedulerType]),
    ):
        if value not in known:
            raise UsageError(f"--{flag} {value}: there is none of that name. {suggest(value, known)}")


def _try_schedule(args: TrainingArguments) -> None:
    """Build the schedule once: wrong ``--lr_scheduler_kwargs`` should not wait until the model is loaded."""
    optimizer, given = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), args.lr_scheduler_kwargs
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=0,
            num_training_steps=10,
            scheduler_specific_kwargs=dict(given or {}),
        )
    except (TypeError, ValueError) as error:
        flags = f"--lr_scheduler_type {args.lr_scheduler_type.value}"
        flags += f" --lr_scheduler_kwargs '{json.dumps(given)}'" if given else ""
        raise UsageError(f"{flags}: this schedule cannot be made ({error}).") from error


def set_precision(args: TrainingArguments, run: Run, weights: torch.dtype, trained: torch.dtype) -> None:
    """Decide what autocast computes in: the flags, else the type of the model's weights.

    ``weights``: type of the model as it was loaded; ``trained``: of the parameters that change.
    """
    flags = run.config[TrainerArguments]
    unset = flags.bf16 is None and flags.fp16 is None
    args.bf16 = bool(flags.bf16) or (unset and weights == torch.bfloat16)
    args.fp16 = bool(flags.fp16) or (unset and weights == torch.float16 and args.device.type == "cuda")
    args.mixed_precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "no"
    if args.fp16 and args.device.type != "cuda":
        raise UsageError("--fp16 true needs a GPU: loss scaling does not work here. Use --bf16 true or float32.")
    if args.fp16 and trained == torch.float16:
        raise UsageError(
            "The weights to train are float16, and gradients of float16 weights cannot be scaled. "
            "Use --torch_dtype float32 --fp16 true, or --torch_dtype bfloat16."
        )
    deepspeed.set_types(args, trained)
    if trained in (torch.bfloat16, torch.float16) and not args.deepspeed:  # which keeps float32 copies of them
        run.warn(
            f"The weights to train are {str(trained).removeprefix('torch.')}: changes below 1/256 of a weight are "
            "rounded away. With the memory for it, --torch_dtype float32 --bf16 true trains more exactly."
        )
    run.note("precision", {"weights": str(weights), "trained": str(trained), "autocast": args.mixed_precision})
