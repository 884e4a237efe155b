"""Losses over tokens: ``(logits (N, V) float32, labels (N,)) -> (N,)``, 0 where the label is -100."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from martlet import MartletError, UsageError
from martlet.errors import told

if TYPE_CHECKING:
    from torch import Tensor


def call_loss(name: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call what ``--loss_type`` names; what a stranger's loss does wrong is said to be its fault."""
    import torch

    try:
        return function(*arguments, **named)
    except (MartletError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise MartletError(f"--loss_type {name} failed: {told(error, __file__)}.") from error


def check_values(name: str, found: Any, count: int, unit: str) -> None:
    """Refuse what is not one number for each of ``count`` units: tokens or pairs."""
    import torch

    if not isinstance(found, torch.Tensor) or found.shape != (count,):
        shape = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise UsageError(
            f"--loss_type {name} returned {shape} for {count} {unit}s; a loss of {unit}s returns one number a {unit}."
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of each label."""
    from torch.nn import functional

    return functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)


def dft(logits: Tensor, labels: Tensor) -> Tensor:
    """Weight the negative log-likelihood of each label by its probability, through which no gradient flows.

    "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification" (arXiv 2508.05629).
    """
    losses = cross_entropy(logits, labels)
    return losses * (-losses.detach()).exp()
