"""Losses of contract ``pair``: called by keyword with (P,) tensors, ``-> (P,)`` or a dict of (P,) by divisor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from martlet.specs import Loss

from .base import require
from .kit import Kit
from .losses import check_contract

if TYPE_CHECKING:
    from torch import Tensor

DIVISORS = ("pairs", "chosen_tokens")
SIDES = ("chosen", "rejected")
SETTINGS = {"beta": 0.1, "label_smoothing": 0.1, "discopop_tau": 0.05, "simpo_gamma": 1.0}


def _pairs(pairs: int, *, scale: float = 10.0) -> dict[str, Any]:
    """Make the arguments for P pairs; ``chosen`` and ``rejected`` ask for a gradient."""
    import torch

    draw = torch.Generator().manual_seed(pairs)
    sums = (-scale * torch.rand(4, pairs, generator=draw)).unbind()
    given: dict[str, Any] = dict(zip(("chosen", "rejected", "ref_chosen", "ref_rejected"), sums, strict=True))
    for side in SIDES:
        given[side] = given[side].clone().requires_grad_()
        given[f"{side}_score"] = given[side] - given[f"ref_{side}"]
        given[f"{side}_tokens"] = torch.randint(1, 40, (pairs,), generator=draw).float()
    given["nll"] = -given["chosen"]
    return given | SETTINGS | {"a_setting_of_later": 1.0}


def _terms(kit: Kit, spec: Loss, given: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what a loss gives, by divisor."""
    found = kit.build(spec)(**given)
    return found if isinstance(found, dict) else {"pairs": found}


def check_takes_unknown_arguments(kit: Kit, spec: Loss) -> None:
    """It takes ``**more``: settings come that it does not read."""
    kinds = {parameter.kind for parameter in inspect.signature(kit.build(spec)).parameters.values()}
    require(inspect.Parameter.VAR_KEYWORD in kinds, "it names its arguments alone; accept **more, new ones may come.")


def check_one_loss_a_pair(kit: Kit, spec: Loss) -> None:
    """It returns one loss a pair, for one pair as for many."""
    import torch

    for pairs in (5, 1, 2, 64):
        for divisor, found in _terms(kit, spec, _pairs(pairs)).items():
            require(
                divisor in DIVISORS,
                f"it returned a term averaged over {divisor!r}; a loss of pairs averages over {' or '.join(DIVISORS)}.",
            )
            require(isinstance(found, torch.Tensor), f"it returned {type(found).__name__}, not a tensor.")
            require(
                found.shape == (pairs,) and found.is_floating_point(),
                f"for {pairs} pairs it returned {found.dtype} of shape {tuple(found.shape)}; return one float a pair, "
                f"shape ({pairs},). The trainer takes the mean.",
            )


def check_finite(kit: Kit, spec: Loss) -> None:
    """It is finite, with a finite gradient, also for answers that are as good as impossible."""
    import torch

    for scale, words in ((10.0, "ordinary pairs"), (1e4, "log-probabilities down to -10000"), (0.0, "certain answers")):
        given = _pairs(9, scale=scale)
        terms = list(_terms(kit, spec, given).values())
        require(all(found.isfinite().all() for found in terms), f"it is not finite for {words}; use logsigmoid.")
        total = torch.cat(terms).sum()
        gradients = torch.autograd.grad(total, [given[side] for side in SIDES], allow_unused=True)
        require(all(one is None or one.isfinite().all() for one in gradients), f"its gradient is not, for {words}.")


def check_gradient_reaches_answers(kit: Kit, spec: Loss) -> None:
    """Training on it changes the log-probabilities of the answers that it reads."""
    import torch

    given = _pairs(9)
    total = torch.cat(list(_terms(kit, spec, given).values())).sum()
    require(total.requires_grad, "no gradient flows through it; is there a detach(), no_grad() or item()?")
    gradients = torch.autograd.grad(total, [given[side] for side in SIDES], allow_unused=True)
    read = inspect.signature(kit.build(spec)).parameters
    for side, gradient in zip(SIDES, gradients, strict=True):
        require(
            {side, f"{side}_score"}.isdisjoint(read) or (gradient is not None and bool(gradient.any())),
            f"it reads the {side} answers, and their gradient is zero.",
        )


def check_changes_nothing(kit: Kit, spec: Loss) -> None:
    """It does not write into the tensors that it is given."""
    import torch

    given = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in _pairs(9).items()}
    before = {name: value.clone() for name, value in given.items() if isinstance(value, torch.Tensor)}
    _terms(kit, spec, given)
    changed = [name for name, value in before.items() if not torch.equal(value, given[name])]
    require(not changed, f"it changes {', '.join(changed)} in place; other losses and the metrics read them as well.")


CHECKS = (
    check_contract,
    check_takes_unknown_arguments,
    check_one_loss_a_pair,
    check_finite,
    check_gradient_reaches_answers,
    check_changes_nothing,
)
