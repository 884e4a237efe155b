"""Choose the hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from martlet import ConfigError

from .args import HubArguments

if TYPE_CHECKING:
    from martlet import Config


def choose(config: Config) -> Iterable[tuple[str, str, str]]:
    """Yield ``hub`` where it is not given: by ``use_hf``."""
    settings = config[HubArguments]
    if settings.hub is None:
        name, reason = ("hf", "use_hf is true") if settings.use_hf else ("ms", "use_hf is false")
        yield "hub", name, reason
    elif settings.use_hf and config.is_set("use_hf") and settings.hub.rpartition("::")[2] != "hf":
        raise ConfigError(f"--use_hf true and --hub {settings.hub} name different hubs; leave one of them out.")
