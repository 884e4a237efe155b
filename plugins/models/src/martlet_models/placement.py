"""Where weights go and which number type they have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import UsageError

from .source import expand

if TYPE_CHECKING:
    from martlet import Process

NAMED_DEVICES = ("cpu", "mps", "disk")
"""What ``max_memory`` may name beside the numbers of accelerators."""
AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")


def device_map(value: Mapping[str, Any] | str | None) -> Mapping[str, Any] | str | None:
    """Return what ``--device_map`` says as transformers takes it; reads a JSON file."""
    if not isinstance(value, str):
        return value
    if value in AUTOMATIC:
        return value
    file = expand(value)
    if value.endswith(".json") or file.is_file():
        return _read(file)
    import torch

    try:
        torch.device(value)
    except RuntimeError as error:
        raise UsageError(
            f"--device_map {value}: not a device, a JSON object or a JSON file, nor one of {', '.join(AUTOMATIC)}."
        ) from error
    return value


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--device_map {file}: not a readable JSON file ({error}).") from error
    if not isinstance(found, dict):
        raise UsageError(f"--device_map {file}: the file must hold one JSON object, module name to device.")
    return found


def max_memory(value: Mapping[int | str, Any] | None) -> dict[int | str, Any] | None:
    """Return ``--max_memory`` with device numbers as numbers and amounts in bytes, as accelerate reads them."""
    if value is None:
        return None
    from accelerate.utils import convert_file_size_to_int

    found: dict[int | str, Any] = {}
    for key, amount in value.items():
        device = int(key) if str(key).isdigit() else key
        if isinstance(device, str) and device not in NAMED_DEVICES:
            raise UsageError(f"--max_memory: {key!r} is no device; use a number, {' or '.join(NAMED_DEVICES)}.")
        try:
            found[device] = convert_file_size_to_int(amount)
        except (AttributeError, TypeError, ValueError) as error:
            raise UsageError(f"--max_memory: {amount!r} is no amount; write bytes, or a text such as 20GB.") from error
    return found


def default_map(process: Process, *, for_training: bool) -> Mapping[str, Any] | str | None:
    """Choose a device map where none is given.

    A trainer places the model itself (None). For inference: the accelerator of this process; all of them together
    where one process sees several; else the processor.
    """
    import torch

    if for_training or not torch.accelerator.is_available():
        return None
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return None
    if process.world_size == 1 and torch.accelerator.device_count() > 1:
        return "auto"
    return {"": f"{accelerator.type}:{process.local_rank}" if accelerator.type != "mps" else "mps"}
