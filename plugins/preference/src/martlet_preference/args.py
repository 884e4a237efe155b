"""Flags of the preference trainers. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PairArguments:
    """What the losses of pairs read, whichever trainer they belong to."""

    loss_weights: list[float] | None = None
    """Weight of each loss of `--loss_type`, in that order. Default: 1 each."""
    label_smoothing: float = field(default=0.0, metadata={"ge": 0, "lt": 0.5})
    """Share of the pairs whose preference is taken to be the wrong way round (conservative DPO)."""
    discopop_tau: float = field(default=0.05, metadata={"gt": 0, "le": 1})
    """Temperature with which the loss `discopop` passes from its logistic to its exponential part."""
    simpo_gamma: float = 1.0
    """By how much SimPO wants the reward of the chosen answer to exceed the other's; 0.5 to 1.5 are usual."""


@dataclass
class DpoArguments:
    """DPO alone."""

    rpo_alpha: float | None = field(default=None, metadata={"ge": 0})
    """Add the negative log-likelihood of the chosen answers with this weight (RPO); 1 is usual. Default: not added."""
    ld_alpha: float | None = field(default=None, metadata={"ge": 0, "le": 1})
    """Weight of the tokens beyond the length of the shorter answer of a pair (LD-DPO). Default: as all others."""
    f_divergence_type: str = field(
        default="reverse_kl",
        metadata={"choices": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")},
    )
    """Divergence that keeps the model near its reference."""
    f_alpha_divergence_coef: float = 0.5
    """Alpha of `--f_divergence_type alpha_divergence`; 1 is the reverse KL divergence."""


@dataclass
class CpoArguments:
    """CPO and SimPO."""

    cpo_alpha: float = field(default=1.0, metadata={"ge": 0})
    """Weight of the negative log-likelihood of the chosen answers."""


@dataclass
class KtoArguments:
    """KTO."""

    desirable_weight: float = field(default=1.0, metadata={"ge": 0})
    """Weight of the losses of good answers, those with the label true."""
    undesirable_weight: float = field(default=1.0, metadata={"ge": 0})
    """Weight of the losses of bad answers, those with the label false."""


@dataclass
class RewardArguments:
    """Reward models."""

    center_rewards_coefficient: float | None = field(default=None, metadata={"ge": 0})
    """Weight of a term that draws the mean of all rewards to 0; 0.01 is usual. Default: not added."""
