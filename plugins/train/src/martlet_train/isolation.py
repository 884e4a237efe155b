"""Make sure that a row is scored the same wherever it stands in a batch: behind another row, or behind padding.

transformers separates them by ``position_ids`` that begin anew, for attention. A layer that keeps a state (SSM,
convolution), or positions that a model counts for itself, would let one row leak into the next, so this is tried out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from martlet import UsageError

from .probing import base_of, body_of, difference, evaluating, probe_ids, rounding

LENGTH = 12
LEAK = 1e-5
"""Difference that other tokens in the same places may make: what is computed in the same shape is rounded the same."""


def check_isolation(model: nn.Module, flag: str) -> None:
    """Raise ``UsageError`` naming ``flag`` unless a document's logits are the same alone and beside another one."""
    base = base_of(model)
    if not _takes_positions(base):
        raise UsageError(
            f"{flag}: {type(base).__name__} takes no positions to keep rows apart by. Train without {flag}."
        )
    first, other, document = probe_ids(model, 3 * LENGTH).view(3, LENGTH)

    def behind(ids: Tensor) -> Tensor:
        return _logits(model, [ids, document])[-LENGTH:]

    leak, shift = _changes(model, document, behind, first, other)
    if not leak and shift <= rounding(model):
        return
    path = getattr(base.config, "_attn_implementation", None)
    why = "rows would see one another" if leak else "it does not begin to count positions anew"
    raise UsageError(
        f"{flag}: {type(base).__name__} with attention {path!r} cannot keep rows of one sequence apart: {why} "
        f"(a row's logits change by {leak or shift:.2g} of their spread). Train without {flag}."
    )


def check_left_padding(model: nn.Module) -> None:
    """Raise ``UsageError`` unless a document's logits are the same alone and behind padding."""
    base, flag = base_of(model), "--padding_side left"
    if not _takes_positions(base):
        raise UsageError(f"{flag}: {type(base).__name__} takes no positions, so that it would count the padding.")
    padding, other, document = probe_ids(model, 3 * LENGTH).view(3, LENGTH)
    mask = (torch.arange(2 * LENGTH, device=document.device) >= LENGTH).long().repeat(2, 1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)

    def behind(ids: Tensor) -> Tensor:
        both = torch.cat([ids, document]).repeat(2, 1)  # some models look at the mask of several rows only
        return _call(model, input_ids=both, attention_mask=mask, position_ids=positions)[0, LENGTH:]

    leak, shift = _changes(model, document, behind, padding, other)
    if leak or shift > rounding(model):
        raise UsageError(
            f"{flag}: padding changes what {type(base).__name__} makes of the row behind it (its logits by "
            f"{leak or shift:.2g} of their spread). Use --padding_side right."
        )


def _changes(
    model: nn.Module, document: Tensor, behind: Callable[[Tensor], Tensor], one: Tensor, other: Tensor
) -> tuple[float, float]:
    """Return by how much a document's logits differ behind one and behind other tokens, 0 if not; and from those alone.

    Experts are computed for as many tokens as chose them, which rounds differently. What is small enough for that is
    told apart by its derivative, which is 0 without any influence.
    """
    with evaluating(model):
        alone, expected = _logits(model, [document]), behind(one)
        leak = difference(behind(other), expected)
    if leak <= LEAK or (leak <= rounding(model) and not _depends(model, behind, one)):
        leak = 0.0
    return leak, difference(expected, alone)


def _depends(model: nn.Module, behind: Callable[[Tensor], Tensor], ids: Tensor) -> bool:
    """Tell whether the logits of a document have a derivative by the embeddings of the tokens before it."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    base: Any = base_of(model)
    handle = base.get_input_embeddings().register_forward_hook(keep)
    try:
        with evaluating(model), torch.enable_grad():
            logits = behind(ids)
            (gradient,) = torch.autograd.grad(logits, kept[:1], logits.detach())
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # no derivative to be had: ZeRO takes the weights away behind each module
        return True
    finally:
        handle.remove()
    return bool(gradient[:, :LENGTH].any().item())


def _takes_positions(base: nn.Module) -> bool:
    return bool({"position_ids", "kwargs"} & inspect.signature(base.forward).parameters.keys())


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
    hidden: Tensor = body_of(model)(**inputs, use_cache=False)[0]
    return hidden.float()
