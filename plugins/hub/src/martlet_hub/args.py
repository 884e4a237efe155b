"""Flags that say which hub to use."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class HubArguments:
    hub: str | None = field(default=None, metadata={"component": "hubs"})
    """Hub that model and dataset ids without a scheme belong to. Not given: ModelScope, or Hugging Face with use_hf."""
    use_hf: bool = field(default=False, metadata={"env": "USE_HF", "important": True})
    """Download from Hugging Face instead of ModelScope."""
    hub_token: str | None = field(default=None, metadata={"secret": True})
    """Access token of the hub. Not given: the one that its own login command or environment variable gave."""
