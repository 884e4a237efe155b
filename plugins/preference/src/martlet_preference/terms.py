"""The losses that ``--loss_type`` names, called the way the contract ``pair`` says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from martlet import Loss, Run, UsageError
from martlet_train.api import call_loss, check_values
from martlet_train.args import TrainArguments, TrainerArguments

from .args import PairArguments
from .checks import is_given
from .losses import OF_A_BATCH

DIVISORS = ("pairs", "chosen_tokens")
"""What the terms of a loss may be averaged over."""
SETTINGS = ("label_smoothing", "discopop_tau", "simpo_gamma")
"""Flags that losses read, by the name of the argument."""


@dataclass(frozen=True)
class Term:
    """One loss of a run."""

    name: str
    weight: float
    function: Callable[..., Any]

    def __call__(self, given: Mapping[str, Any], pairs: int) -> dict[str, Tensor]:
        """Return (P,) losses by what they are averaged over."""
        found = call_loss(self.name, self.function, **given)
        terms = found if isinstance(found, dict) else {"pairs": found}
        if not terms:
            raise UsageError(f"--loss_type {self.name} returned no term; a loss of pairs returns one number a pair.")
        for divisor, losses in terms.items():
            if divisor not in DIVISORS:
                raise UsageError(
                    f"--loss_type {self.name} returned a term averaged over {divisor!r}; "
                    f"a loss of pairs averages over {' or '.join(DIVISORS)}."
                )
            check_values(self.name, losses, pairs, "pair")
        return terms

    def names(self, parts: Iterable[str]) -> dict[str, str]:
        """Return what its parts are logged as beside other losses, by what they are averaged over."""
        several = len(parts := list(parts)) > 1
        return {divisor: f"loss_{self.name}" + (f"_{divisor}" if several else "") for divisor in parts}

    def reads(self, argument: str) -> bool:
        return argument in inspect.signature(self.function).parameters


def chosen_terms(run: Run, settings: Mapping[str, float]) -> list[Term]:
    """Return the losses of ``--loss_type`` with their weights, each tried out on made-up pairs."""
    names = [spec.name for spec in run.selected(Loss)]
    weights = _weights(run.config[PairArguments].loss_weights, names)
    terms = [Term(*parts) for parts in zip(names, weights, run.all(Loss), strict=True)]
    for term in terms:
        if not any(losses.requires_grad for losses in term(made_up(settings), 2).values()):
            raise UsageError(
                f"--loss_type {term.name} has no gradient: it depends on nothing that the model computes (chosen, "
                "rejected, chosen_score, rejected_score, nll)."
            )
    warn_of_idle(run, terms)
    return terms


def warn_of_idle(run: Run, terms: list[Term], flags: Iterable[str] = SETTINGS) -> None:
    """Say which settings of losses none of these reads, and which loss has nothing to sort."""
    names = " or ".join(term.name for term in terms)
    for flag in flags:
        if is_given(run, flag) and not any(term.reads(flag) for term in terms):
            run.warn(f"--{flag} has no effect here: the loss {names} does not read it.")
    sorting = [term.name for term in terms if term.function in OF_A_BATCH]
    alone = run.config[TrainerArguments].per_device_train_batch_size == 1 and not run.config[TrainArguments].packing
    if sorting and alone:
        run.warn(
            f"--loss_type {sorting[0]} sorts the pairs of a batch, and one pair sorts to itself. "
            "Raise --per_device_train_batch_size."
        )


def check_divergence(terms: list[Term], divergence: str) -> None:
    """Refuse losses that do not see what a divergence changes: they would train on the reverse KL divergence."""
    blind = [term.name for term in terms if term.reads("ref_chosen") and not term.reads("chosen_score")]
    if not any(term.reads("chosen_score") for term in terms):
        blind = [term.name for term in terms]
    if blind:
        raise UsageError(
            f"--f_divergence_type {divergence} does not go with --loss_type {' '.join(blind)}: it is defined "
            "for losses of the difference of two scores. Leave it at reverse_kl, or choose another loss."
        )


def made_up(settings: Mapping[str, float]) -> dict[str, Any]:
    """Return the arguments of a loss for two pairs: what is wrong with it shows before a model is loaded."""
    learnt = dict.fromkeys(("chosen", "rejected", "chosen_score", "rejected_score"), -6.0) | {"nll": 6.0}
    known = {"ref_chosen": -6.0, "ref_rejected": -6.0, "chosen_tokens": 6.0, "rejected_tokens": 6.0}
    found = {name: torch.full((2,), value) for name, value in known.items()}
    found |= {name: torch.full((2,), value, requires_grad=True).clone() for name, value in learnt.items()}
    return {**found, **settings}


def _weights(weights: list[float] | None, names: list[str]) -> list[float]:
    given = "--loss_weights " + " ".join(f"{weight:g}" for weight in weights or ())
    if weights is None:
        return [1.0] * len(names)
    if len(names) == 1:
        raise UsageError(f"{given} weighs several losses; --loss_type names one, {names[0]}. Name more, or drop it.")
    if len(weights) != len(names):
        raise UsageError(
            f"{given} has {len(weights)} numbers for the {len(names)} losses {', '.join(names)}; give each loss one."
        )
    if not all(weight >= 0 for weight in weights) or not any(weights):
        raise UsageError(f"{given}: weights are 0 or more, and at least one is more.")
    return weights
