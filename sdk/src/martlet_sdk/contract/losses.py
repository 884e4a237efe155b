"""Losses of contract ``token``: ``(logits (N, V), labels (N,)) -> (N,)``, 0 where the label is -100."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from martlet.specs import Loss

from .base import Skipped, require
from .kit import Kit

if TYPE_CHECKING:
    from torch import Tensor

CONTRACTS = ("token", "pair", "policy", "embedding")
VOCABULARY = 13


def _loss(kit: Kit, spec: Loss) -> Any:
    if spec.contract != "token":
        raise Skipped(f"the kit has no tensors for contract {spec.contract!r}.")
    return kit.build(spec)


def _batch(tokens: int, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Make logits (tokens, V) that ask for a gradient, and labels of which every third is -100."""
    import torch

    generator = torch.Generator().manual_seed(tokens)
    logits = torch.randn(tokens, VOCABULARY, generator=generator) * scale
    labels = torch.randint(0, VOCABULARY, (tokens,), generator=generator)
    labels[1::3] = -100
    return logits.requires_grad_(), labels


def check_contract(kit: Kit, spec: Loss) -> None:
    """Its contract is one that trainers know."""
    require(spec.contract in CONTRACTS, f"contract {spec.contract!r} is not one of {', '.join(CONTRACTS)}.")


def check_one_loss_a_token(kit: Kit, spec: Loss) -> None:
    """It returns one loss a token, for one token as for many."""
    import torch

    loss = _loss(kit, spec)
    for tokens in (9, 1, 2, 64):
        logits, labels = _batch(tokens)
        found = loss(logits, labels)
        require(isinstance(found, torch.Tensor), f"it returned {type(found).__name__}, not a tensor.")
        require(
            found.shape == labels.shape and found.is_floating_point(),
            f"for {tokens} tokens it returned {found.dtype} of shape {tuple(found.shape)}; return one float a token, "
            f"shape ({tokens},). The trainer takes the mean.",
        )


def check_finite(kit: Kit, spec: Loss) -> None:
    """It is finite, with a finite gradient, also where the model is certain and wrong, or nothing is supervised."""
    import torch

    loss = _loss(kit, spec)
    for scale, words in ((1.0, "ordinary logits"), (200.0, "logits in the hundreds")):
        logits, labels = _batch(9, scale=scale)
        found = loss(logits, labels)
        require(found.isfinite().all(), f"it is not finite for {words}: {found.tolist()}; use log_softmax.")
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        require(gradient.isfinite().all(), f"its gradient is not finite for {words}.")
    logits, labels = _batch(3)
    nothing = loss(logits, torch.full_like(labels, -100))
    require((nothing == 0).all(), f"where every label is -100 it returns {nothing.tolist()}, not zeros.")


def check_gradient_reaches_logits(kit: Kit, spec: Loss) -> None:
    """Training on it changes the logits of supervised tokens."""
    import torch

    logits, labels = _batch(9)
    found = _loss(kit, spec)(logits, labels)
    require(found.requires_grad, "no gradient flows through it; is there a detach(), no_grad() or item()?")
    (gradient,) = torch.autograd.grad(found.sum(), logits, allow_unused=True)
    require(
        gradient is not None and gradient[labels != -100].abs().sum() > 0,
        "the gradient of every supervised token's logits is zero.",
    )


def check_ignores_unsupervised(kit: Kit, spec: Loss) -> None:
    """A token with the label -100 has loss 0 and no influence."""
    import torch

    loss = _loss(kit, spec)
    logits, labels = _batch(9)
    ignored = labels == -100
    found = loss(logits, labels)
    require((found[ignored] == 0).all(), f"tokens with the label -100 have the loss {found[ignored].tolist()}, not 0.")
    (gradient,) = torch.autograd.grad(found.sum(), logits, allow_unused=True)
    require(gradient is None or not gradient[ignored].any(), "the logits of tokens with the label -100 get a gradient.")
    other = logits.detach().clone()
    other[ignored] += torch.arange(VOCABULARY)
    require(
        torch.allclose(loss(other, labels)[~ignored], found[~ignored], atol=1e-6),
        "logits of tokens with the label -100 change the loss of other tokens.",
    )


def check_splits_exactly(kit: Kit, spec: Loss) -> None:
    """A token's loss does not depend on what else is in the batch, so any split into batches trains the same.

    With one loss a token, the trainer's weights scale it linearly and the mean over an optimizer step is exact.
    """
    import torch

    loss = _loss(kit, spec)
    logits, labels = _batch(12)
    whole = loss(logits, labels)
    for at in (1, 5, 11):
        parts = torch.cat([loss(logits[:at], labels[:at]), loss(logits[at:], labels[at:])])
        require(
            torch.allclose(whole, parts, atol=1e-6),
            f"a batch of 12 tokens has other losses than its parts of {at} and {12 - at}; do not divide by a count or "
            "a sum over the batch.",
        )


def check_changes_nothing(kit: Kit, spec: Loss) -> None:
    """It does not write into the tensors that it is given."""
    import torch

    logits, labels = _batch(9)
    frozen, before = logits.detach().clone(), labels.clone()
    given = frozen.clone()
    _loss(kit, spec)(given, labels)
    require(torch.equal(labels, before), "it changes the labels in place; the metrics read them as well.")
    require(torch.equal(given, frozen), "it changes the logits in place.")


CHECKS = (
    check_contract,
    check_one_loss_a_token,
    check_finite,
    check_gradient_reaches_logits,
    check_ignores_unsupervised,
    check_splits_exactly,
    check_changes_nothing,
)
