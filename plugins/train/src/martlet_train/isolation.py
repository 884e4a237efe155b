"""Make sure that a row is scored the same wherever it stands in a batch: behind another row, or behind padding.

transformers separates them by ``position_ids`` that begin anew, for attention. A layer that keeps a state (SSM,
convolution), or positions that a model counts for itself, would let one row leak into the next, so this is tried out.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from martlet import UsageError

from .scoring import base_of, evaluating, probe_ids

LENGTH = 12
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
COARSE = 4e-2
"""Share of the logits' spread by which they may differ: float32 and wider, and 16-bit types."""


def check_isolation(model: nn.Module, flag: str) -> None:
    """Raise ``UsageError`` naming ``flag`` unless a document's logits are the same alone and beside another one."""
    base = base_of(model)
    if not _takes_positions(base):
        raise UsageError(
            f"{flag}: {type(base).__name__} takes no positions to keep rows apart by. Train without {flag}."
        )
    first, other, document = probe_ids(model, 3 * LENGTH).view(3, LENGTH)
    with evaluating(model):
        alone = _logits(model, [document])[-LENGTH:]
        beside = _logits(model, [first, document])[-LENGTH:]
        beside_other = _logits(model, [other, document])[-LENGTH:]
    tolerance = TOLERANCE.get(next(model.parameters()).dtype, COARSE)
    leak, shift = _change(beside_other, beside, alone), _change(alone, beside, alone)
    if leak <= tolerance and shift <= tolerance:
        return
    path = getattr(base.config, "_attn_implementation", None)
    why = "rows would see one another" if leak > tolerance else "it does not begin to count positions anew"
    raise UsageError(
        f"{flag}: {type(base).__name__} with attention {path!r} cannot keep rows of one sequence apart: {why} "
        f"(a row's logits change by {max(leak, shift):.0%} of their spread). Train without {flag}."
    )


def check_left_padding(model: nn.Module) -> None:
    """Raise ``UsageError`` unless a document's logits are the same alone and behind padding."""
    base, flag = base_of(model), "--padding_side left"
    if not _takes_positions(base):
        raise UsageError(f"{flag}: {type(base).__name__} takes no positions, so that it would count the padding.")
    padding, document = probe_ids(model, 2 * LENGTH).view(2, LENGTH)
    mask = (torch.arange(2 * LENGTH, device=document.device) >= LENGTH).long().repeat(2, 1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    ids = torch.cat([padding, document]).repeat(2, 1)  # some models look at the mask of several rows only
    with evaluating(model):
        alone = _logits(model, [document])
        padded = _call(model, input_ids=ids, attention_mask=mask, position_ids=positions)
    change = _change(padded[0, LENGTH:], alone, alone)
    if change > TOLERANCE.get(next(model.parameters()).dtype, COARSE):
        raise UsageError(
            f"{flag}: padding changes what {type(base).__name__} makes of the row behind it (its logits by "
            f"{change:.0%} of their spread). Use --padding_side right."
        )


def _takes_positions(base: nn.Module) -> bool:
    return bool({"position_ids", "kwargs"} & inspect.signature(base.forward).parameters.keys())


def _change(one: Tensor, other: Tensor, usual: Tensor) -> float:
    """Return the largest difference of logits, as a share of their spread."""
    return ((one - other).abs().max() / usual.std().clamp_min(1e-6)).item()


def _logits(model: nn.Module, documents: list[Tensor]) -> Tensor:
    """Return (T, V) f32 logits of the documents laid one behind another."""
    positions = torch.cat([torch.arange(len(ids), device=ids.device) for ids in documents])
    return _call(model, input_ids=torch.cat(documents)[None], position_ids=positions[None])[0]


def _call(model: nn.Module, **inputs: Tensor) -> Tensor:
    """Return f32 logits; of a model that classifies sequences, the hidden states, for it gives one score a row."""
    base: Any = base_of(model)
    if base.get_output_embeddings() is not None:
        logits: Tensor = model(**inputs, use_cache=False).logits
        return logits.float()
    hidden: Tensor = getattr(base, base.base_model_prefix)(**inputs, use_cache=False)[0]
    return hidden.float()
