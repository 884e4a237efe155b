"""Where a run writes."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from martlet import Run, UsageError

from .args import TrainArguments, TrainerArguments

VERSION = re.compile(r"v(\d+)-\d{8}-\d{6}")


def choose_folder(run: Run) -> Path:
    """Return the folder of this run, which need not exist yet; ``UsageError`` if it cannot be written.

    A launcher that has chosen it for all processes passes it on in ``MARTLET_RUN_FOLDER``.
    """
    base = Path(run.config[TrainerArguments].output_dir or "output")
    check_writable(base)
    if chosen := os.environ.get("MARTLET_RUN_FOLDER"):
        return Path(chosen)
    return base / next_version(base) if run.config[TrainArguments].add_version else base


def next_version(base: Path) -> str:
    """Return ``vN-YYYYMMDD-HHMMSS`` with the first N that is not taken."""
    taken = [int(found[1]) for name in _names(base) if (found := VERSION.fullmatch(name))]
    return f"v{max(taken, default=-1) + 1}-{time.strftime('%Y%m%d-%H%M%S')}"


def _names(base: Path) -> list[str]:
    return os.listdir(base) if base.is_dir() else []


def check_writable(folder: Path) -> None:
    """Raise ``UsageError`` unless ``folder`` exists and can be written, or can be created. Leaves no trace."""
    nearest = Path(os.path.abspath(folder))
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UsageError(f"--output_dir {folder}: {nearest} is not a folder. Choose another place.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"--output_dir {folder}: {nearest} cannot be written. Choose another place.")
