"""The kernel's own plugin: the flags that every command takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .hookspecs import hookimpl
from .specs import Arguments

LEVELS = ("debug", "info", "warning", "error", "DEBUG", "INFO", "WARNING", "ERROR")


@dataclass
class BaseArguments:
    seed: int = field(default=42, metadata={"ge": 0, "le": 2**32 - 1})
    """Seed of everything random in the run but the order of the data (data_seed)."""
    load_args: bool = False
    """Read model, template and tuner settings from the args.json of the checkpoint that is named."""
    load_data_args: bool = False
    """Read the data settings of that checkpoint as well, its split into training and validation included."""
    external_plugins: list[str] = field(default_factory=list, metadata={"important": True})
    """Plugins to load beside the installed ones: .py files, package folders or module names."""
    disable_plugins: list[str] = field(default_factory=list)
    """Installed plugins to leave out, by name."""
    strict_plugins: bool = False
    """Stop when an installed plugin cannot be loaded, instead of going on without it."""
    config: list[str] = field(default_factory=list, metadata={"important": True})
    """YAML files of `flag: value` lines; a later file wins, and the command line wins over all."""
    set: list[str] = field(default_factory=list)
    """Options of a component (reward.brevity.scale=2), or a flag by its group (base.seed=1)."""
    ignore_args_error: bool = False
    """Warn about unknown flags instead of stopping, as notebooks need."""
    debug: bool = field(default=False, metadata={"env": ("MARTLET_DEBUG", "SWIFT_DEBUG")})
    """Show the traceback of an error."""
    log_level: str = field(default="info", metadata={"env": "LOG_LEVEL", "choices": LEVELS})
    """How much is logged."""


@hookimpl
def provide_arguments() -> Iterator[Arguments]:
    yield Arguments("base", BaseArguments, roles=("base",))
