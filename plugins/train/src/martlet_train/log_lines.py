"""Log events as lines for people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_FIRST = ("loss", "grad_norm", "learning_rate", "token_acc")
_HIDDEN = re.compile(r"epoch|total_flos|num_input_tokens_seen|(.*_)?(\w+_per_second|preparation_time)")
_TOKENS = ("tokens_per_second", "train_tokens_per_second")


def describe(
    values: Mapping[str, Any],
    *,
    step: int,
    total: int,
    elapsed_seconds: float | None = None,
    remaining_seconds: float | None = None,
    memory_gib: float | None = None,
    steps_per_second: float | None = None,
) -> str:
    """Return one line: the step, the metrics, where training is in time, memory and speed."""
    width = len(str(max(total, step)))
    parts = [f"step {step:>{width}}/{total}" if total > 0 else f"step {step}"]
    ordered = [key for key in _FIRST if key in values] + [key for key in values if key not in _FIRST]
    for key in ordered:
        if _HIDDEN.fullmatch(key):
            continue
        shown = duration(values[key]) if key.endswith("_runtime") else number(key, values[key])
        parts.append(f"{key} {shown}")
    if isinstance(epoch := values.get("epoch"), (int, float)):
        parts.append(f"epoch {epoch:.2f}" if epoch >= 0.1 or epoch == 0 else f"epoch {epoch:.4f}")
    if elapsed_seconds is not None:
        parts.append(f"elapsed {duration(elapsed_seconds)}")
    if remaining_seconds is not None:
        parts.append(f"remaining {duration(remaining_seconds)}")
    if memory_gib is not None:
        parts.append(f"memory {memory_gib:.2f} GiB")
    if steps_per_second:
        slow = steps_per_second < 1
        parts.append(f"speed {1 / steps_per_second:.2f} s/step" if slow else f"speed {steps_per_second:.2f} steps/s")
    tokens = next((values[key] for key in _TOKENS if isinstance(values.get(key), (int, float))), None)
    if tokens is not None:
        parts.append(f"{tokens:,.0f} tokens/s")
    return "  ".join(parts)


def number(key: str, value: Any) -> str:
    """Return a value with the digits that a reader compares: 2.3456, 12.346, 1.0e-04."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if key.endswith("learning_rate") or 0 < size < 1e-3 or size >= 1e6:
        return f"{value:.1e}"
    decimals = 4 if size < 10 else 3 if size < 100 else 2 if size < 1000 else 1
    return f"{value:.{decimals}f}"


def duration(seconds: float) -> str:
    """Return 4.2s, 38s, 3m48s, 1h02m or 2d03h."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h"
