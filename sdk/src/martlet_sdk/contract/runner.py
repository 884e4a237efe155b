"""All checks of a plugin, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module

from martlet.specs import Spec

from . import general
from .base import Check, Result, Samples, check_name, location, run_check
from .kit import Kit

BY_KIND: dict[str, tuple[str, str]] = {
    "commands": ("commands", "CHECKS"),
    "arguments": ("arguments", "CHECKS"),
    "models": ("models", "CHECKS"),
    "model_patches": ("models", "PATCH_CHECKS"),
    "templates": ("templates", "CHECKS"),
    "agent_templates": ("agent_templates", "CHECKS"),
    "loss_scales": ("loss_scales", "CHECKS"),
    "datasets": ("rows", "DATASET_CHECKS"),
    "dataset_sources": ("sources", "CHECKS"),
    "preprocessors": ("rows", "PREPROCESSOR_CHECKS"),
    "trainers": ("trainers", "CHECKS"),
    "tuners": ("tuners", "CHECKS"),
    "losses": ("losses", "CHECKS"),
    "losses:pair": ("pair_losses", "CHECKS"),
    "callbacks": ("callbacks", "CHECKS"),
    "rewards": ("rewards", "CHECKS"),
    "engines": ("engines", "CHECKS"),
    "hubs": ("hubs", "CHECKS"),
    "launchers": ("launchers", "CHECKS"),
}
"""Kind, maybe with a contract of its own -> module of this package, and the name of its checks there."""


def checks_of(spec: Spec) -> tuple[Check, ...]:
    """Return the checks of a component; none for a kind that the kernel does not have."""
    contract = getattr(spec, "contract", "")
    module, name = BY_KIND.get(f"{spec.kind}:{contract}") or BY_KIND.get(spec.kind, ("", ""))
    if not module:
        return ()
    found: tuple[Check, ...] = getattr(import_module(f"{__package__}.{module}"), name)
    return found


def component_checks(specs: list[Spec]) -> Iterator[tuple[str, Spec, Check]]:
    """Yield ``(id, spec, check)`` of every check of every component."""
    for spec in specs:
        for check in checks_of(spec):
            yield f"{spec.kind}:{spec.name}:{check_name(check)}", spec, check


def check_plugin(plugin: str, samples: Samples | None = None) -> Iterator[Result]:
    """Check a file, a module or an installed plugin; yield results as they come.

    Raises ``UsageError`` where there is no such plugin. What the plugin itself does wrong is a result.
    """
    with Kit(plugin, samples) as kit:
        for check in general.CHECKS:
            result = run_check(f"plugin:{check_name(check)}", partial(check, kit), skip=kit.samples.skip)
            yield result
            if result.outcome == "failed" and check in (general.check_loads, general.check_yields_specs):
                return
        for id, spec, check in component_checks(kit.specs):
            yield run_check(id, partial(check, kit, spec), where=location(spec), skip=kit.samples.skip)
