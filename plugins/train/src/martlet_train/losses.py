"""Losses over tokens: ``(logits (N, V) float32, labels (N,)) -> (N,)``, 0 where the label is -100."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
