"""Try out what a model's ``forward`` does, with a few made-up tokens, before anything is trained.

Right and wrong are told apart by how far results differ, so rounding has to be known. It grows with the layers: the
root mean square was 0.02 of the spread with 80 layers in bfloat16, and 0.06 where experts are chosen; what a model
computes wrongly differed by 0.4 and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-2}
COARSE = 0.2
"""Differences that may be rounding: of float64, of float32 (a GPU may multiply in TF32), and of types of 16 bits."""


def base_of(model: nn.Module) -> nn.Module:
    """Return the transformers model inside a PEFT wrapper, or the model itself."""
    unwrap = getattr(model, "get_base_model", None)
    base: nn.Module = unwrap() if unwrap else model
    return base


def body_of(model: nn.Module) -> nn.Module:
    """Return what makes hidden states of tokens, without the head that is put onto them.

    Mostly ``base_model_prefix`` names it; where it does not (Llama 4), it is the part that holds the embeddings of the
    input. A model without such a part is its own body, and what it makes are logits.
    """
    base: Any = base_of(model)
    if (named := base.base_model) is not base:
        return named  # type: ignore[no-any-return]
    embeddings = base.get_input_embeddings()
    parts = (part for part in base.children() if isinstance(part, PreTrainedModel))
    return next((part for part in parts if any(inner is embeddings for inner in part.modules())), base)


def embeddings_of(model: nn.Module) -> Any:
    """Return the layer that token ids go into, without an adapter's wrapper."""
    base: Any = base_of(model)
    embeddings = base.get_input_embeddings()
    return embeddings.get_base_layer() if hasattr(embeddings, "get_base_layer") else embeddings


def probe_ids(model: nn.Module, count: int, *, seed: int = 0) -> Tensor:
    """Return token ids (count,) on the model's device, without touching the global random state."""
    embeddings = embeddings_of(model)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, embeddings.num_embeddings, (count,), generator=generator)
    return ids.to(embeddings.weight.device)


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the root mean square of the difference of two tensors, as a share of the spread of the second."""
    return ((found - expected).square().mean().sqrt() / expected.std().clamp_min(1e-6)).item()


def rounding(model: nn.Module) -> float:
    """Return the difference up to which numbers of ``model`` may be the same."""
    return ROUNDING.get(next(model.parameters()).dtype, COARSE)


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
