"""Use a model for a while and hand it back exactly as it was: it may be in the middle of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from martlet.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import GenerationConfig


def causal_lm(model: nn.Module) -> Any:
    """Return the transformers model inside a PEFT wrapper, or ``model``."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode (which also turns gradient checkpointing off) and back, module by module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def adapter(model: nn.Module, name: str | None) -> Iterator[None]:
    """Answer with the named adapter, or with none; which one is active and what is trained stay as they were."""
    any_model: Any = model
    if not hasattr(model, "peft_config"):
        if name is not None:
            raise UsageError(f"adapter {name!r}: this model has no adapters to choose from.")
        yield
        return
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    active = any_model.active_adapter
    with ExitStack() as undo:
        # Last in, first out: the adapter goes back before the flags that switching it may have changed.
        undo.callback(lambda: [parameter.requires_grad_(flag) for parameter, flag in trained])
        if name is None:
            undo.enter_context(any_model.disable_adapter())
        elif active != name:
            any_model.set_adapter(name, inference_mode=True)
            undo.callback(any_model.set_adapter, active, inference_mode=True)
        yield


@contextmanager
def generation_config(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Let ``generate`` see only ``config``: what it leaves unset is not filled in from the checkpoint again."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw from a generator of our own when there is a seed, so that nobody else's randomness moves."""
    import torch

    if seed is None:
        yield
        return
    devices: Sequence[Any] = [device] if device.type != "cpu" else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed(seed)
        yield
