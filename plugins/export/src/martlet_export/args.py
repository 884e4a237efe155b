"""Flags of exports."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ExportArguments:
    output_dir: str | None = field(default=None, metadata={"important": True})
    """Folder for the result. By default `NAME-merged` beside the adapter's folder."""
    exist_ok: bool = field(default=False, metadata={"important": True})
    """Replace the folder if it exists and holds a model. Without it nothing that exists is touched."""
    safe_serialization: bool = True
    """Write weights as safetensors. False is refused: the older format can carry code."""
    max_shard_size: str = "5GB"
    """Size of a weight file at most, such as 500MB; what is larger becomes several files."""
