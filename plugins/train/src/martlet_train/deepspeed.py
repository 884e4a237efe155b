"""DeepSpeed: its configuration from the flags, the start of its processes, weights that lie in parts while loading.

Batch sizes, accumulation, clipping, number types, optimizer and schedule are the flags' business; a configuration file
chooses how the state is divided and where it lies. What the two say must not differ.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet.errors import ConfigError, UsageError, suggest

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import TrainingArguments

    from martlet import Config, Run

    from .args import TrainerArguments

CONFIGS = Path(__file__).parent / "deepspeed_configs"
NAMES = tuple(sorted(file.stem for file in CONFIGS.glob("*.json")))
INSTALL = 'pip install "martlet-train[deepspeed]"'
ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "adagrad", "rmsprop", "sgd")
"""Values of ``--optim`` whose steps are the same on a slice of the concatenated weights as on whole matrices."""
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
FLAGS_DECIDE = {
    "optimizer": "--optim, --learning_rate, --weight_decay and the --adam_... flags",
    "scheduler": "--lr_scheduler_type, --warmup_ratio and --learning_rate",
    "amp": "--bf16",
    "torch_autocast": "--bf16",
    "tensor_parallel": "the number of processes alone: parts of a layer on several devices are not supported",
}
"""Sections of DeepSpeed's configuration that have flags of their own."""


def read(text: str) -> dict[str, Any]:
    """Return the configuration that ``--deepspeed`` names: one of ours, a JSON file, or JSON itself.

    Raises ``ConfigError``. Reads files and nothing else.
    """
    inline = text.lstrip().startswith("{")
    file = CONFIGS / f"{text}.json" if text in NAMES else Path(os.path.expanduser(text))
    if not inline and not file.is_file():
        raise ConfigError(f"--deepspeed {text}: there is no such file. {suggest(text, NAMES)}")
    try:
        found: dict[str, Any] = json.loads(text if inline else file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--deepspeed {text}: not readable JSON ({error}).") from error
    zero = found.get("zero_optimization", {"stage": 0}) if isinstance(found, dict) else None
    if not isinstance(zero, dict) or zero.get("stage", 0) not in (0, 1, 2, 3):
        raise ConfigError(
            f'--deepspeed {text}: a JSON object is needed whose "zero_optimization" holds a "stage" from 0 to 3.'
        )
    return found


def faults(config: Config, flags: TrainerArguments) -> Iterable[tuple[Any, str]]:
    """Return what does not go with ``--deepspeed``: whether it is so, and the sentence. Loads nothing."""
    hpz, text = flags.zero_hpz_partition_size, flags.deepspeed
    if text is None:
        yield hpz, f"--zero_hpz_partition_size {hpz} is a setting of DeepSpeed; add --deepspeed zero3."
        return
    found, asked = read(text), f"--deepspeed {text}"
    zero = found.get("zero_optimization", {})
    yield flags.fsdp, f"{asked} and --fsdp {flags.fsdp} both divide the state of training; choose one."
    yield spreads(config), f"{asked} places the weights itself; leave --device_map and --max_memory out."
    yield (
        flags.optim not in ELEMENTWISE,
        f"--optim {flags.optim} looks at whole matrices or keeps state of its own form, and {asked} cuts the weights "
        f"into equal slices. Use one of {', '.join(ELEMENTWISE)}.",
    )
    yield flags.fp16, f"--fp16 true: with {asked} use --bf16 true, or float32."
    for section, who in FLAGS_DECIDE.items():
        yield section in found, f'{asked}: take "{section}" out of it; that is decided by {who}.'
    yield _on(found, "fp16"), f'{asked}: "fp16" is enabled in it, which is not supported; use bf16, or float32.'
    for name in ("offload_optimizer", "offload_param"):
        nvme = (zero.get(name) or {}).get("device") == "nvme"
        yield nvme, f'{asked}: "{name}" to nvme is not supported, because checkpoints are written whole; use cpu.'
    offloads = (zero.get("offload_optimizer") or {}).get("device", "none") != "none"
    yield (
        offloads and not flags.optim.startswith("adamw_torch"),
        f"{asked} steps the optimizer on the CPU, which only --optim adamw_torch can do there.",
    )
    yield from _of_stage_3(config, asked, zero, hpz)
    yield (
        importlib.util.find_spec("deepspeed") is None,
        f"{asked} needs DeepSpeed, which is not installed; try `{INSTALL}`.",
    )


def _of_stage_3(config: Config, asked: str, zero: dict[str, Any], hpz: int | None) -> Iterable[tuple[Any, str]]:
    third = zero.get("stage") == 3
    yield hpz and not third, f"--zero_hpz_partition_size {hpz} divides weights, which {asked} does not; use zero3."
    theirs = zero.get("zero_hpz_partition_size", hpz)
    yield (
        hpz and theirs != hpz,
        f"{asked}: zero_hpz_partition_size is {theirs} in it, and {hpz} by --zero_hpz_partition_size. Change one.",
    )
    for flag in ("new_special_tokens", "init_strategy"):
        yield (
            third and _value(config, flag),
            f"--{flag} changes weights that {asked} loads in parts. Save the changed model once without it (a run of "
            "one step with --tuner_type full, say), and train that.",
        )
    for flag in ("use_dora", "target_parameters"):
        yield (
            third and _value(config, flag),
            f"--{flag} computes with weights outside of the layer they belong to, and {asked} brings them together for "
            "that layer alone. Use zero2, or leave the flag out.",
        )


def _check_numbers(found: dict[str, Any], flags: TrainerArguments, processes: int) -> None:
    """Compare the numbers that both sides know, in a process of the run: what starts it does not know them all."""
    hpz = flags.zero_hpz_partition_size or 1
    if processes % hpz:
        raise UsageError(
            f"--zero_hpz_partition_size {hpz}: it has to divide the number of processes, which is {processes}."
        )
    rows, steps = flags.per_device_train_batch_size, flags.gradient_accumulation_steps or 1
    for key, value, flag in (
        ("train_micro_batch_size_per_gpu", rows, "--per_device_train_batch_size"),
        ("gradient_accumulation_steps", steps, "--gradient_accumulation_steps"),
        ("train_batch_size", rows * steps * processes, "batch size × accumulation × processes"),
        ("gradient_clipping", flags.max_grad_norm, "--max_grad_norm"),
    ):
        theirs = found.get(key, "auto")
        if theirs not in ("auto", value):
            raise ConfigError(
                f'--deepspeed {flags.deepspeed}: {key} is {theirs} in it, and {value} by {flag}. Write "auto" there, '
                "or change the flag."
            )


def _on(found: dict[str, Any], section: str) -> Any:
    """Return what a section's ``enabled`` says: True, False, or None for "auto" or nothing."""
    value = (found.get(section) or {}).get("enabled")
    return None if value == "auto" else value


def spreads(config: Config) -> bool:
    """Tell whether flags of the model place its layers on devices."""
    return any(_value(config, flag) for flag in ("device_map", "max_memory"))


def _value(config: Config, flag: str) -> Any:
    try:
        return config.value(flag)
    except UsageError:
        return None


def start(flags: TrainerArguments, *, cpu: bool, processes: int) -> dict[str, Any]:
    """Let DeepSpeed take up, or start, the processes; return what ``TrainingArguments`` take, none without the flag.

    Must run before ``TrainingArguments`` are made, which cannot do it on a CPU.
    """
    if flags.deepspeed is None:
        return {}
    found = read(flags.deepspeed)
    _check_numbers(found, flags, processes)
    zero = found.setdefault("zero_optimization", {"stage": 0})
    if flags.zero_hpz_partition_size:
        zero["zero_hpz_partition_size"] = flags.zero_hpz_partition_size
    for key in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size"):
        found[key] = "auto"
    found["gradient_clipping"] = flags.max_grad_norm
    found.setdefault("steps_per_print", 10**9)  # it would print lines of its own
    if cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if processes == 1:  # started by no launcher, and DeepSpeed asks for what one says
        for name, value in ALONE.items():
            os.environ.setdefault(name, value)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # accelerate warns that it does not count the batches of a step: the loop and DeepSpeed do.
    logging.getLogger("accelerate.accelerator").addFilter(lambda record: "steps mismatch" not in record.getMessage())
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")  # of DeepSpeed's calls
    import deepspeed

    backend = flags.ddp_backend or ("gloo" if cpu else None)
    deepspeed.init_distributed(backend, timeout=timedelta(seconds=flags.ddp_timeout), verbose=False)
    return {"deepspeed": found}


def check_types(args: TrainingArguments, trained: torch.dtype) -> None:
    """Raise ``UsageError`` where the configuration contradicts the type of the weights to train."""
    import torch

    given = _on(args.deepspeed, "bf16") if isinstance(args.deepspeed, dict) else None
    if given is not None and given != (trained == torch.bfloat16):
        raise UsageError(
            f'--deepspeed: "bf16" is {"" if given else "not "}enabled in its configuration, and the weights to train '
            f'are {str(trained).removeprefix("torch.")}. Write "auto" there, or choose --torch_dtype accordingly.'
        )


def set_types(args: TrainingArguments, trained: torch.dtype) -> None:
    """Tell DeepSpeed what the weights to train are and what to compute in, as ``args`` say.

    Weights of 16 bits get float32 copies that the optimizer changes; float32 weights stay as they are, under autocast
    where ``args.bf16``. Raises ``UsageError`` where the configuration says otherwise.
    """
    import torch

    if not args.deepspeed:
        return
    check_types(args, trained)
    found, half = args.hf_deepspeed_config.config, trained == torch.bfloat16
    found["bf16"] = {**(found.get("bf16") or {}), "enabled": half}
    if args.bf16 and not half:
        # An empty list: gradients and weights are exchanged in their own type, as without DeepSpeed.
        found["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    args.mixed_precision = "no"  # accelerate would tell DeepSpeed something else


def load_whole(args: TrainingArguments) -> None:
    """Let transformers load models whole until ``loading_in_parts``; arguments with stage 3 tell it otherwise."""
    if args.deepspeed:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()
        args.hf_deepspeed_config.mismatches.clear()  # types are not known yet, and all else was compared


def loaded_type(models: Any, run: Run) -> torch.dtype:
    """Return the type that the model's weights will have; ``UsageError`` for quantised ones, which stay whole."""
    skeleton = models.skeleton(run)
    if getattr(skeleton.config, "quantization_config", None) is not None:
        raise UsageError(
            "--deepspeed: stage 3 cannot divide quantised weights. Use zero2, or a model of plain weights."
        )
    found: torch.dtype = next(p.dtype for p in skeleton.parameters() if p.is_floating_point())
    return found


@contextmanager
def loading_in_parts(args: TrainingArguments, weights: Callable[[], torch.dtype]) -> Iterator[None]:
    """Let every process keep its share of the models that are loaded here, where the stage is 3.

    ``weights``: asked then which type the weights will have.
    """
    theirs = _third(args)
    if theirs is None:
        yield
        return
    import torch
    from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    before, half = theirs.config, weights() == torch.bfloat16
    theirs.config = {**before, "bf16": {"enabled": half}}
    set_hf_deepspeed_config(theirs)
    try:
        yield
    finally:
        theirs.config = before
        unset_hf_deepspeed_config()


def run_in_parts(model: nn.Module, args: TrainingArguments) -> nn.Module:
    """Return a second, frozen model as it has to be called: with stage 3 its weights are divided as those trained."""
    theirs = _third(args)
    if theirs is None:
        return model
    import deepspeed

    kept = ("train_micro_batch_size_per_gpu", "bf16", "torch_autocast", "steps_per_print")
    config = {key: theirs.config[key] for key in kept if key in theirs.config}
    zero = theirs.config["zero_optimization"]
    config["zero_optimization"] = {key: value for key, value in zero.items() if key != "offload_optimizer"}
    engine: nn.Module = deepspeed.initialize(model=model, config=config)[0]
    engine.eval()
    return engine


def _third(args: TrainingArguments) -> Any:
    """Return the configuration of stage 3, or None."""
    theirs = getattr(args, "hf_deepspeed_config", None)
    return theirs if theirs is not None and theirs.is_zero3() else None
