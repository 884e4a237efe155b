"""Flags of exports."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ExportArguments:
    output_dir: str | None = field(default=None, metadata={"important": True})
    """Folder for the result. Left out: a merged adapter is `NAME-merged` beside its folder; a cached dataset is
    `MODEL-cached-dataset` in the folder that you type in."""
    exist_ok: bool = field(default=False, metadata={"important": True})
    """Replace the folder if it exists and holds an earlier result. Without it nothing that exists is touched."""


@dataclass
class ActionArguments:
    to_cached_dataset: bool = field(default=False, metadata={"important": True})
    """Encode --dataset and --val_dataset once and write them, for --cached_dataset of later runs."""


@dataclass
class WeightArguments:
    safe_serialization: bool = True
    """Write weights as safetensors. False is refused: the older format can carry code."""
    max_shard_size: str = "5GB"
    """Size of a weight file at most, such as 500MB; what is larger becomes several files."""
