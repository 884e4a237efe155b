"""Scores of whole conversations, by models that have a score head in the place of an output layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .borrow import causal_lm

if TYPE_CHECKING:
    from torch import nn


def is_classifier(inner: Any) -> bool:
    """Tell whether a transformers model puts numbers to a text instead of writing it."""
    return type(inner).__name__.endswith("ForSequenceClassification")


def score(model: nn.Module, conversations: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return one number a label for each of some conversations. The model is in evaluation mode."""
    inner = causal_lm(model)
    device = inner.get_input_embeddings().weight.device
    width = max(len(ids) for ids in conversations)
    pad = inner.config.get_text_config().pad_token_id or 0
    ids = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in conversations], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in conversations], device=device)
    with torch.no_grad():
        found: list[list[float]] = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().tolist()
    return found
