"""Decide which model family a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from martlet import AmbiguousComponent, Model

from .tasks import architectures

if TYPE_CHECKING:
    from martlet import Run


def match(run: Run, reference: str, config: Mapping[str, Any]) -> tuple[str, Model] | None:
    """Return ``(plugin, spec)`` of the family that claims a checkpoint, by its id or else by its architecture.

    ``reference`` is what ``--model`` says. Two families that claim it alike are an ``AmbiguousComponent``; None means
    that nobody claims it.
    """
    specs = run.manager.specs(Model)
    last = reference.rstrip("/").rpartition("/")[2]
    names = {reference.lower(), last.lower()}

    def claims(spec: Model) -> bool:
        return any(fnmatchcase(name, pattern.lower()) for pattern in spec.checkpoints for name in names)

    by_id = [(plugin, spec) for plugin, spec in specs if claims(spec)]
    named = set(architectures(config))
    by_architecture = [(plugin, spec) for plugin, spec in specs if named & set(spec.architectures)]
    for hits in (by_id, by_architecture):
        if len(hits) == 1:
            return hits[0]
        if hits:
            choices = " or ".join(f"--model_type {plugin}::{spec.name}" for plugin, spec in hits)
            raise AmbiguousComponent(f"--model {reference} fits more than one model type; write {choices}.")
    return None
