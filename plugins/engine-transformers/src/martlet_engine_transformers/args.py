"""Flags of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TransformersEngineArguments:
    max_batch_size: int = field(default=1, metadata={"ge": -1, "important": True})
    """Answer at most this many conversations in one forward pass. Conversations of similar length are put together;
    0 or -1 takes all of them at once."""
