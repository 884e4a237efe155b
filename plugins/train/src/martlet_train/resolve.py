"""Choose what the user left open, and say why. No heavy imports: ``--help`` and ``schema`` get here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from math import isfinite
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from martlet import Loss, Trainer
from martlet.errors import ConfigError, UsageError, suggest

from . import deepspeed, fsdp
from .args import TrainArguments, TrainerArguments
from .output import check_writable

if TYPE_CHECKING:
    from martlet import Config, PluginManager

ROWS_PER_STEP = 16
Choice = tuple[str, Any, str]


def _value(config: Config, flag: str) -> Any:
    """Return the value of a flag that this command may not have."""
    try:
        return config.value(flag)
    except UsageError:
        return None


def world_size(config: Config | None = None) -> int:
    """Return the number of processes that a launcher has started, or that ``config`` lets it start."""
    here = int(os.environ.get("WORLD_SIZE") or 1)
    if here > 1 or config is None:
        return max(here, 1)
    return (_value(config, "nproc_per_node") or 1) * (_value(config, "nnodes") or 1)


def optimizer_settings(text: str | None) -> dict[str, str]:
    """Split ``--optim_args``; ``ConfigError`` where it is not ``name=value,name=value``."""
    found: dict[str, str] = {}
    for part in text.replace(" ", "").split(",") if text else ():
        name, equals, value = part.partition("=")
        if not (name and equals and value) or "=" in value or name in found:
            raise ConfigError(f"--optim_args {text}: {part!r} is not one name=value; write name=value,name=value.")
        found[name] = value
    return found


def choose_trainer(config: Config) -> Iterable[Choice]:
    """Fill the flags of ``TrainerArguments`` that are None."""
    yield from _choose_training(config)
    yield from _choose_evaluation(config)
    workers = config.value("dataloader_num_workers")
    if workers is None:
        windows = sys.platform == "win32"
        workers = 0 if windows else 1
        yield "dataloader_num_workers", workers, "on Windows" if windows else "prepares batches while the model works"
    if config.value("dataloader_prefetch_factor") is None and workers:
        yield "dataloader_prefetch_factor", 2, "there are data workers"
    config.warnings += _without_effect(config)


def _choose_training(config: Config) -> Iterable[Choice]:
    if config.value("output_dir") is None:
        model = _value(config, "model")
        name = PurePath(str(model)).name if model else "model"
        yield "output_dir", os.path.join("output", name or "model"), "named after --model"
    if config.value("gradient_accumulation_steps") is None:
        rows = config.value("per_device_train_batch_size") * world_size(config)
        steps = -(-ROWS_PER_STEP // rows)
        yield "gradient_accumulation_steps", steps, f"the smallest with at least {ROWS_PER_STEP} rows in a step"
    if config.value("learning_rate") is None:
        yield "learning_rate", 1e-4, "the tuner recommends none"


def _evaluation_rows(config: Config) -> bool:
    return any(_value(config, name) for name in ("val_dataset", "cached_val_dataset", "split_dataset_ratio"))


def _choose_evaluation(config: Config) -> Iterable[Choice]:
    strategy = config.value("eval_strategy")
    if strategy is None:
        if _evaluation_rows(config):
            strategy, reason = config.value("save_strategy"), "follows --save_strategy"
        else:
            strategy, reason = "no", "neither --val_dataset nor --split_dataset_ratio is given"
        yield "eval_strategy", strategy, reason
    if config.value("eval_steps") is None and strategy == "steps":
        yield "eval_steps", config.value("save_steps"), "follows --save_steps"
    metric = config.value("metric_for_best_model")
    if metric is None:
        metric = "loss"
        yield "metric_for_best_model", metric, "the evaluation loss"
    if config.value("greater_is_better") is None:
        yield "greater_is_better", "loss" not in metric, f"the metric is {metric}"


def choose_train(config: Config) -> Iterable[Choice]:
    """Fill the flags of ``TrainArguments`` that are None. ``UsageError`` for a task that the trainer does not train."""
    _check_task(config)
    length = _value(config, "max_length")
    if config.value("packing") and config.value("packing_length") is None and length:
        sides = 2 if _value(config, "rlhf_type") else 1
        yield "packing_length", sides * length, "twice --max_length: pairs" if sides == 2 else "follows --max_length"
    if config.value("lazy_tokenize") is None:
        yield "lazy_tokenize", False, "rows are text"
    if config.value("loss_type") is None and config.value("enable_dft_loss"):
        yield "loss_type", ["dft"], "--enable_dft_loss true"


def _check_task(config: Config) -> None:
    """Refuse a model of another task than the trainer's: before the model's owner asks for what such a one needs."""
    name = (_value(config, "rlhf_type") or config.command.name).rpartition("::")[2]
    trainer = next((spec for _, spec in config.manager.specs(Trainer) if spec.name == name), None)
    if trainer is None or not config.is_set("task_type"):
        return
    made_for = trainer.defaults.get("task_type", "causal_lm")
    if (task := config.value("task_type")) != made_for:
        raise UsageError(f"--task_type {task}: {name} trains models of {made_for}. Leave the flag out.")


def _without_effect(config: Config) -> Iterable[str]:
    """Say which flags of this command line are not read, and because of which other one."""
    value = config.value
    readers = {
        "packing_length": (_value(config, "packing"), "--packing true"),
        "packing_num_proc": (_value(config, "packing") and not _value(config, "streaming"), "--packing true on a map"),
        "load_from_cache_file": (
            not (_value(config, "lazy_tokenize") or _value(config, "streaming")),
            "a run that encodes its rows before training",
        ),
        "padding_side": (not (value("packing") or value("padding_free")), "a batch that is padded"),
        "eval_steps": (value("eval_strategy") == "steps", "--eval_strategy steps, and rows to evaluate on,"),
        "eval_delay": (value("eval_strategy") != "no", "an evaluation"),
        "per_device_eval_batch_size": (value("eval_strategy") != "no" or value("eval_on_start"), "an evaluation"),
        "save_steps": (value("save_strategy") == "steps" or value("eval_strategy") == "steps", "--save_strategy steps"),
        "logging_steps": (value("logging_strategy") == "steps", "--logging_strategy steps"),
        "gradient_checkpointing_kwargs": (value("gradient_checkpointing"), "--gradient_checkpointing true"),
    }
    streams, shuffles = _value(config, "streaming"), _value(config, "dataset_shuffle")
    if streams is not None:
        readers |= {
            "shuffle_buffer_size": (streams and shuffles, "--streaming true with --dataset_shuffle true"),
            "stopping_strategy": (_value(config, "interleave_prob"), "--interleave_prob"),
            "num_train_epochs": (not streams, "a run without --streaming true"),
            "dataset_num_proc": (not streams or _value(config, "val_dataset"), "a run without --streaming true"),
        }
    for name, (read, reader) in readers.items():
        if not read and config.is_set(name) and config.origin(name).source != "args.json":
            yield f"--{name} has no effect here: only {reader} reads it."


def _stream_faults(config: Config) -> Iterable[tuple[bool, str]]:
    """Return what a stream, whose rows are not known before they are read, cannot do."""
    if not _value(config, "streaming"):
        return
    loop, train = config[TrainerArguments], config[TrainArguments]
    yield (
        loop.max_steps <= 0,
        "--streaming true: nobody knows how many rows a stream has, so --max_steps has to say where training, and the "
        "learning rate's schedule, end. To end after so many passes over the data, add --max_epochs.",
    )
    yield (
        loop.group_by_length,
        "--group_by_length true needs the lengths of all rows, which --streaming true does not know. Drop one.",
    )
    longest = _value(config, "max_length")
    yield (
        train.packing and (longest is None or longest > (train.packing_length or longest)),
        f"--packing true with --streaming true needs --max_length, at most --packing_length ({train.packing_length}), "
        "so that no row is too long for a pack.",
    )


def _lazy_faults(config: Config) -> Iterable[tuple[bool, str]]:
    """Return what cannot be done when rows become tokens only as they are fetched."""
    lazy = config[TrainArguments].lazy_tokenize
    for flag, given, why in (
        ("--packing true", config[TrainArguments].packing, "needs the length of every row before training"),
        ("--group_by_length true", config[TrainerArguments].group_by_length, "needs the length of every row"),
        ("--streaming true", _value(config, "streaming"), "encodes rows while training by itself"),
        ("--cached_dataset", _value(config, "cached_dataset"), "holds rows that are encoded already"),
        ("--cached_val_dataset", _value(config, "cached_val_dataset"), "holds rows that are encoded already"),
        ("--truncation_strategy split", _value(config, "truncation_strategy") == "split", "makes several rows of one"),
    ):
        yield bool(lazy and given), f"{flag} {why}, which does not go with --lazy_tokenize true. Drop one."


def _broken(config: Config) -> bool:
    """Tell whether a plugin did not load: it may be why something is missing."""
    return any(row.error for row in config.manager.plugins.values())


def algorithms(manager: PluginManager, command: str) -> list[str]:
    """Return the trainers that a flag of a command selects."""
    return sorted(spec.name for _, spec in manager.specs(Trainer) if spec.command == command)


def _check_algorithm(config: Config) -> None:
    """Refuse an algorithm that no plugin provides, naming those of the command."""
    if "trainers" not in config.missing:
        return
    name = _value(config, "rlhf_type")
    known = algorithms(config.manager, config.command.name)
    if not name or not known or "::" in name or _broken(config):
        raise config.missing["trainers"]
    hint = suggest(name, known, listed="Its algorithms")
    raise UsageError(f"--rlhf_type {name}: No plugin provides trainer {name!r} for {config.command.name}. {hint}")


def _check_losses(config: Config) -> None:
    """Refuse a loss that no plugin provides, naming those that the trainer takes; unlist one that none reads."""
    chosen = [item.spec for item in config.selections.get("trainers", ())]
    if chosen and not getattr(chosen[0], "contracts", ()) and not config.is_set("loss_type"):
        config.selections.pop("losses", None)
    if "losses" not in config.missing or not config.is_set("loss_type"):
        return
    chosen = chosen or [spec for _, spec in config.manager.specs(Trainer) if spec.name == config.command.name]
    accepted = {contract for spec in chosen for contract in getattr(spec, "contracts", ())}
    losses = [spec for _, spec in config.manager.specs(Loss)]
    taken = [spec.name for spec in losses if spec.contract in accepted]
    for name in () if _broken(config) else config.value("loss_type"):
        if accepted and "::" not in name and name not in [spec.name for spec in losses]:
            hint = f"{suggest(name, taken, listed='')} The {' and '.join(sorted(accepted))} losses: ".lstrip()
            listed = ", ".join(sorted(taken))
            raise UsageError(f"--loss_type {name}: No plugin provides loss {name!r}. {hint}{listed}.")
    raise config.missing["losses"]


def _endless(config: Config) -> Iterable[tuple[bool, str]]:
    """Return the flags with a number that is none, or has no end, unless their default is such a one."""
    for flag, value, _ in config:
        numbers = value if isinstance(value, list) else [value]
        wrong = [one for one in numbers if isinstance(one, float) and not isfinite(one)]
        usual = isinstance(flag.field.default, float) and not isfinite(flag.field.default)
        yield bool(wrong) and not usual, f"--{flag.name} {' '.join(map(str, wrong))} is no finite number; give one."


def check(config: Config) -> None:
    """Raise ``ConfigError`` for settings that contradict one another, before anything is loaded."""
    if TrainerArguments not in config or TrainArguments not in config:
        return
    _check_algorithm(config)
    _check_losses(config)
    loop, train = config[TrainerArguments], config[TrainArguments]
    evaluates = loop.eval_strategy not in (None, "no") or loop.eval_on_start
    has_rows = _evaluation_rows(config)
    faults = (
        *_endless(config),
        (
            loop.max_steps == 0,
            "--max_steps 0 trains nothing: give at least 1, or -1 (the default) to let --num_train_epochs decide.",
        ),
        (loop.bf16 and loop.fp16, "--bf16 and --fp16 are both true; choose one."),
        (
            evaluates and not has_rows,
            "evaluation is asked for, but there are no rows for it: give --val_dataset or --split_dataset_ratio.",
        ),
        (
            loop.group_by_length and not loop.train_dataloader_shuffle,
            "--group_by_length true chooses the order of the rows; --train_dataloader_shuffle false cannot keep it.",
        ),
        (
            loop.group_by_length and train.packing,
            "--packing true already fills every sequence; --group_by_length true has no effect with it. Drop one.",
        ),
        (
            (loop.resume_only_model or loop.ignore_data_skip) and not loop.resume_from_checkpoint,
            "--resume_only_model and --ignore_data_skip belong to --resume_from_checkpoint, which is not given.",
        ),
        (loop.push_to_hub and not loop.hub_model_id, "--push_to_hub true needs --hub_model_id owner/name."),
        (
            loop.resume_from_checkpoint and not os.path.exists(loop.resume_from_checkpoint),
            f"--resume_from_checkpoint {loop.resume_from_checkpoint}: there is no such folder.",
        ),
        *_stream_faults(config),
        *_lazy_faults(config),
        *deepspeed.faults(config, loop),
        *fsdp.faults(config, loop),
        (
            train.loss_type not in (None, ["dft"]) and loop.enable_dft_loss,
            f"--enable_dft_loss true and --loss_type {' '.join(train.loss_type or ())} each name a loss; choose one.",
        ),
        (
            loop.dataloader_num_workers == 0 and config.is_set("dataloader_prefetch_factor"),
            "--dataloader_prefetch_factor belongs to data workers, and --dataloader_num_workers is 0.",
        ),
    )
    for wrong, text in faults:
        if wrong:
            raise ConfigError(text)
    optimizer_settings(loop.optim_args)
    check_writable(Path(loop.output_dir or "output"))
