"""Flags of the commands about plugins and settings."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PluginListArguments:
    kind: str | None = None
    """Show the components of one kind only."""
    json: bool = False
    """Print JSON."""


@dataclass
class ShowArguments:
    name: list[str] = field(default_factory=list)
    """A plugin, a component or plugin::component."""


@dataclass
class SchemaArguments:
    of: list[str] = field(default_factory=list)
    """The command whose flags are described."""
