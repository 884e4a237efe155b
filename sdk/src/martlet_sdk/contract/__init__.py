"""The contract kit: what every plugin promises, as checks.

``PluginContract`` is a class to subclass in a test module; ``check_plugin`` yields the same checks' results without
pytest; ``Samples`` tells either what it cannot know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Broken, Result, Samples, Skipped
from .runner import check_plugin

if TYPE_CHECKING:
    from .suite import PluginContract

__all__ = ["Broken", "PluginContract", "Result", "Samples", "Skipped", "check_plugin"]


def __getattr__(name: str) -> Any:
    """Import pytest only for the class that needs it."""
    if name == "PluginContract":
        from .suite import PluginContract

        return PluginContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
