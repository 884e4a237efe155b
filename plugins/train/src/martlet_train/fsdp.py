"""FSDP2 through accelerate: its settings from ``--fsdp``, and what it cannot do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet.errors import ConfigError, UsageError, suggest

from .deepspeed import spreads

if TYPE_CHECKING:
    from martlet import Config

    from .args import TrainerArguments

NAMES = ("fsdp2",)
SETTINGS: dict[str, tuple[type, ...]] = {
    "version": (int,),
    "reshard_after_forward": (bool,),
    "cpu_offload": (bool,),
    "auto_wrap_policy": (str,),
    "transformer_layer_cls_to_wrap": (list, str),
    "min_num_params": (int,),
}
"""Settings that a file may hold, by transformers' names, and their types."""
OURS: dict[str, Any] = {"version": 2, "reshard_after_forward": True, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}


def read(text: str) -> dict[str, Any]:
    """Return the settings that ``--fsdp`` names: ours, or those of a JSON file on top of ours."""
    if text in NAMES:
        return dict(OURS)
    file = Path(os.path.expanduser(text))
    if not file.is_file():
        raise ConfigError(f"--fsdp {text}: there is no such file. {suggest(text, NAMES)}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--fsdp {text}: not readable JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ConfigError(f"--fsdp {text}: the file must hold one JSON object.")
    for key, value in found.items():
        if key not in SETTINGS:
            raise ConfigError(f"--fsdp {text}: there is no setting {key!r}. {suggest(key, SETTINGS)}")
        if not isinstance(value, SETTINGS[key]):
            kinds = " or ".join(kind.__name__ for kind in SETTINGS[key])
            raise ConfigError(f"--fsdp {text}: {key} is {value!r} and has to be of type {kinds}.")
    if found.get("version", 2) != 2:
        raise ConfigError(f"--fsdp {text}: version is {found['version']}, and only FSDP2 (version 2) is supported.")
    return OURS | found


def faults(config: Config, flags: TrainerArguments) -> Iterable[tuple[Any, str]]:
    """Return what does not go with ``--fsdp``: whether it is so, and the sentence. Loads nothing."""
    if flags.fsdp is None:
        return
    read(flags.fsdp)
    asked = f"--fsdp {flags.fsdp}"
    yield spreads(config), f"{asked} places the weights itself; leave --device_map and --max_memory out."


def start(flags: TrainerArguments, *, cpu: bool, processes: int) -> dict[str, Any]:
    """Return what ``TrainingArguments`` take; ``ConfigError`` on a CPU, where accelerate would not divide anything."""
    if flags.fsdp is None:
        return {}
    if processes == 1:
        raise UsageError(
            f"--fsdp {flags.fsdp} divides the state over several processes, and there is one; NPROC_PER_NODE=8 in the "
            "environment starts eight."
        )
    if cpu:
        raise ConfigError(
            f"--fsdp {flags.fsdp} needs GPUs: on a CPU accelerate would silently train without it. Leave the flag out "
            "(every process then holds the whole state), or use --deepspeed zero2 or zero3."
        )
    return {"fsdp": True, "fsdp_config": read(flags.fsdp)}
