"""What differs between two training runs, to the bit: logs by step, checkpoints by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .reporting import LOG_FILE
from .resuming import STATE
from .streaming import FILE as STREAM

CLOCKS = ("elapsed_seconds", "remaining_seconds", "memory_gib", "runtime", "per_second", "global_step/max_steps")
"""How values of a log line end that are of the machine, not of the training."""
SHOWN = 3
"""Tensors of a file that are named before the rest is counted."""


def compare_runs(one: Path, other: Path, checkpoint: str) -> list[str]:
    """Return a line for each thing in which two output folders differ: log, ledger, and the checkpoint of a name."""
    found = [*_logs(one / LOG_FILE, other / LOG_FILE)]
    for name in ("ledger.json", "dropped.jsonl"):
        if _bytes(one / name) != _bytes(other / name):
            found.append(f"{name}: the rows used and dropped are other ones")
    return [*found, *compare_checkpoints(one / checkpoint, other / checkpoint)]


def compare_checkpoints(one: Path, other: Path) -> list[str]:
    """Return a line for each file of two checkpoints that differs, with the tensors in which it does."""
    found = []
    names = {path.name for folder in (one, other) for path in folder.glob("*") if path.is_file()}
    for name in sorted(names):
        if not ((one / name).is_file() and (other / name).is_file()):
            found.append(f"{one.name}/{name}: only one of the two runs wrote it")
        elif name == STATE:
            found += [f"{one.name}/{name}: {what}" for what in _states(one / name, other / name)]
        elif _bytes(one / name) != _bytes(other / name):
            if name.endswith(".safetensors"):
                found += [f"{one.name}/{name}: {what}" for what in _tensors(one / name, other / name)]
            elif name == STREAM or name.endswith(".npy"):
                found.append(f"{one.name}/{name}: the place in the data is another one")
    return found


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log but those with which an interrupted run closed."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return [line for line in lines if "train_runtime" not in line or line["step"] == lines[-1]["step"]]


def _without_clocks(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not key.endswith(CLOCKS)}


def _logs(one: Path, other: Path) -> Iterator[str]:
    """Name the first step at which each value differs."""
    first: dict[str, str] = {}
    lines = [{(line["step"], *sorted(_without_clocks(line))): line for line in _lines(path)} for path in (one, other)]
    for place in sorted(lines[0].keys() | lines[1].keys(), key=lambda place: place[0]):
        if not (place in lines[0] and place in lines[1]):
            first.setdefault("a log line", f"only one of the two runs has one of its kind at step {place[0]}")
            continue
        for key, value in _without_clocks(lines[0][place]).items():
            if lines[1][place][key] != value:
                first.setdefault(key, f"first differs at step {place[0]}: {value} and {lines[1][place][key]}")
    yield from (f"{one.name}: {key} {what}" for key, what in first.items())


def _tensors(one: Path, other: Path) -> Iterator[str]:
    import torch
    from safetensors import safe_open

    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        names = sorted({*first.keys(), *second.keys()})
        differing = []
        for name in names:
            if not (name in first.keys() and name in second.keys()):  # noqa: SIM118 (not a mapping)
                differing.append(f"{name} is in one of the two alone")
                continue
            a, b = first.get_tensor(name), second.get_tensor(name)
            if a.dtype != b.dtype or a.shape != b.shape:
                differing.append(f"{name} has another type or shape")
            elif not torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)):
                most = (a.double() - b.double()).abs().max().item()
                differing.append(
                    f"{name} differs in {int((a != b).sum())} of {a.numel()} values, by {most:.3g} at most"
                )
        if first.metadata() != second.metadata():
            differing.append("what it holds beside tensors differs")
    yield from differing[:SHOWN]
    if len(differing) > SHOWN:
        yield f"and {len(differing) - SHOWN} more of {len(names)} tensors"


def _states(one: Path, other: Path) -> Iterator[str]:
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (one, other))
    for key in sorted(first.keys() | second.keys()):
        mine, theirs = first.get(key), second.get(key)
        if key == "log_history":
            mine, theirs = ([_without_clocks(line) for line in lines] for lines in (mine, theirs))
        elif key == "best_model_checkpoint":
            mine, theirs = (Path(path).name if path else path for path in (mine, theirs))
        if mine != theirs:
            shown = "" if isinstance(mine, list | dict) else f": {mine} and {theirs}"
            yield f"{key} differs{shown}"
