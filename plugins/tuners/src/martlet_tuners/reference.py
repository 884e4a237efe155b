"""A model with an adapter as its own reference: for a while the adapter is switched off, or another one on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .start import Start, cast_adapter

if TYPE_CHECKING:
    from torch import nn

NAME = "reference"
"""What the frozen adapter is called in the model."""


def beside(tuned: Any, path: Path, load: Callable[..., Any]) -> str:
    """Load an adapter beside the trained one, frozen; return its name."""
    import torch

    with _as_it_was(tuned):
        load(tuned, path, name=NAME)
    start = Start.read(path)
    if start is not None and start.dtype is not None:
        cast_adapter(tuned, getattr(torch, start.dtype), NAME)
    return NAME


@contextmanager
def switched(tuned: Any, name: str | None) -> Iterator[None]:
    """Compute with the adapter ``name`` alone, or with none; no dropout, and afterwards all is as it was."""
    active = tuned.active_adapter
    with _as_it_was(tuned):
        tuned.eval()
        try:
            if name is None:
                tuned.base_model.disable_adapter_layers()
            else:
                tuned.set_adapter(name, inference_mode=True)
            yield
        finally:
            if name is None:
                tuned.base_model.enable_adapter_layers()
            else:
                tuned.set_adapter(active)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Put back which modules are in training and which parameters are trained: PEFT changes both when it switches."""
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
        for module, flag in training:
            module.training = flag
