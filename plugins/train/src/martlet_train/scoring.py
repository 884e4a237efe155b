"""From a batch to the logits of its supervised tokens.

The output layer is by far the widest of a language model, so only the hidden states that predict a supervised token go
through it, where the model's ``forward`` takes ``logits_to_keep``. What it understands is tried out once, at the start.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from martlet import UsageError

from .batch import Batch

Keep = Literal["all", "columns", "mask"]
"""What ``logits_to_keep`` may be: nothing, column numbers (T,), or column numbers and a mask (B, T)."""


@dataclass
class TokenScores:
    """What the model says about the N supervised tokens of a batch."""

    logits: Tensor
    """(N, V) f32: row i predicts ``targets[i]``."""
    targets: Tensor
    """(N,) i64."""
    aux_loss: Tensor | None = None
    """Scalar: the load-balancing loss of a mixture-of-experts model, where it was asked for."""

    def logp(self) -> Tensor:
        """Return the log-probability of each target: (N,) f32."""
        return -nn.functional.cross_entropy(self.logits, self.targets, reduction="none")


class Scorer:
    """Run the model on a batch. Built once for a model; reads what its ``forward`` accepts."""

    def __init__(self, model: nn.Module, *, keep: bool | None = None, router_logits: bool = False) -> None:
        """Find out what ``model`` accepts.

        ``keep``: compute supervised logits alone, None for "if it can"; ``UsageError`` if it must and cannot.
        """
        parameters = inspect.signature(base_of(model).forward).parameters
        self.inputs: dict[str, Any] = {}
        if "use_cache" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            self.inputs["use_cache"] = False  # with a cache, transformers would not tell packed rows apart either
        if router_logits:
            if "output_router_logits" not in parameters:
                raise UsageError("--router_aux_loss_coef: this model has no experts to balance. Leave it at 0.")
            self.inputs["output_router_logits"] = True
        able: Keep = "all"
        if keep is not False and "logits_to_keep" in parameters:
            able = self._probe(model)
        if keep and able == "all":
            raise UsageError("--use_logits_to_keep true: this model always computes all logits. Leave the flag out.")
        self.keep = able

    def __call__(self, model: nn.Module, batch: Batch) -> TokenScores:
        """Return the scores of a batch that is on the model's device; gradients flow if they are enabled."""
        ids = batch.model_inputs["input_ids"]
        chosen: Tensor | None = None
        if self.keep != "all" and len(ids) == 1:
            chosen = batch.columns
        elif self.keep == "mask":
            chosen = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
            chosen[batch.rows, batch.columns] = True
        keep = {} if chosen is None else {"logits_to_keep": chosen}
        output = model(**batch.model_inputs, **self.inputs, **keep)
        logits = output.logits
        if chosen is None:
            logits = logits[batch.rows, batch.columns]
        else:
            logits = logits.reshape(-1, logits.shape[-1])
        return TokenScores(logits.float(), batch.targets, output.get("aux_loss"))

    def _probe(self, model: nn.Module) -> Keep:
        """Return the most exact form that gives the shape it should."""
        ids = probe_ids(model, 6).view(2, 3)
        mask = torch.tensor([[True, False, True], [False, True, False]], device=ids.device)
        forms: list[tuple[Keep, Tensor, Tensor]] = [("mask", ids, mask), ("columns", ids[:1], mask[0].nonzero()[:, 0])]
        with evaluating(model):
            for form, inputs, chosen in forms:
                try:
                    logits = model(input_ids=inputs, logits_to_keep=chosen, **self.inputs).logits
                except (IndexError, RuntimeError, TypeError, ValueError):
                    continue
                if logits.numel() == int(chosen.sum() if form == "mask" else len(chosen)) * logits.shape[-1]:
                    return form
        return "all"


def base_of(model: nn.Module) -> nn.Module:
    """Return the transformers model inside a PEFT wrapper, or the model itself."""
    unwrap = getattr(model, "get_base_model", None)
    base: nn.Module = unwrap() if unwrap else model
    return base


def probe_ids(model: nn.Module, count: int, *, seed: int = 0) -> Tensor:
    """Return token ids (count,) on the model's device, without touching the global random state."""
    embeddings = base_of(model).get_input_embeddings()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, embeddings.weight.shape[0], (count,), generator=generator)
    return ids.to(embeddings.weight.device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
