"""Tell the user of flags that the chosen tuner does not read."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from martlet import Run


def warn_about_unused(run: Run, group: Any) -> None:
    """Warn of every flag of ``group`` that the user gave in this invocation."""
    for item in fields(group):
        if run.config.is_set(item.name) and run.config.origin(item.name).source != "args.json":
            run.warn(f"--{item.name} has no effect here: it places adapters, and this tuner adds none.")
