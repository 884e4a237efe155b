"""Attention over packed rows, document by document: the work grows with the rows, not with the square of the pack.

PyTorch's ``scaled_dot_product_attention`` (``--attn_impl sdpa``) knows no packed rows: transformers gives it a mask of
every token with every other, and it computes what the mask then forbids. Here each document is a call of its own,
without a mask. The numbers are the same to rounding. Flash attention does this by itself.

A document may have a *branch*: tokens that stand behind it and go on from an earlier place of it, as the rejected
answer does from the prompt that it shares with the chosen one. ``position_ids`` say so: they begin anew at 0 for a
document, and at the place where it leaves the document for a branch. So the prompt of a pair is computed once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from .probing import base_of, body_of, difference, evaluating, probe_ids, rounding

NAME, REPLACED = "martlet_documents", "sdpa"
LENGTHS = (5, 9, 2, 8)
"""Of the documents on which it is tried out."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    position_ids: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Compute what transformers' ``sdpa`` computes: query (B, heads, T, size) to (B, T, heads, size).

    Without a mask, and with one row of ids, ``position_ids`` (1, T) say what each token belongs to.
    """
    if attention_mask is not None or position_ids is None or len(query) != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    settings.pop("is_causal", None)
    found = []
    for start, end, first, shared in _segments(position_ids):
        mask, states = None, (key[:, :, start:end], value[:, :, start:end])
        if shared:
            mask = query.new_ones((1, 1, end - start, shared + end - start), dtype=torch.bool).tril(shared)
            before = (key[:, :, first : first + shared], value[:, :, first : first + shared])
            states = tuple(torch.cat(pair, dim=2) for pair in zip(before, states, strict=True))  # type: ignore[assignment]
        output, _ = sdpa_attention_forward(
            module, query[:, :, start:end], *states, attention_mask=mask, is_causal=mask is None, **settings
        )
        found.append(output)
    return torch.cat(found, dim=1), None


def _segments(position_ids: Tensor) -> list[tuple[int, int, int, int]]:
    """Return documents and branches: start, end, where the document begins, and how much of it the branch goes on from.

    Read once for all layers: on a GPU, reading waits for it.
    """
    known: list[tuple[int, int, int, int]] | None = getattr(position_ids, "segments", None)
    if known is None:
        known, places = [], position_ids[0].tolist()
        starts = [at for at, place in enumerate(places) if at == 0 or place != places[at - 1] + 1]
        document = 0
        for start, end in pairwise([*starts, len(places)]):
            document = start if places[start] == 0 or start == 0 else document
            known.append((start, end, document, places[start] if start != document else 0))
        position_ids.segments = known  # type: ignore[attr-defined]
    return known


def _mask(*args: Any, attention_mask: Tensor | None = None, **settings: Any) -> Tensor | None:
    """Make the mask of padded rows as ``sdpa`` has it, and none for packed ones."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **settings)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)


def by_document(model: nn.Module, longest: int | None) -> bool:
    """Let a model with ``sdpa`` attend document by document, where it gives the same; tell whether it does now.

    longest: tokens of the longest row. A layer with a window needs its mask where a row is longer than that.
    """
    base: Any = base_of(model)
    if getattr(base.config, "_attn_implementation", None) != REPLACED:
        return False
    text = base.config.get_text_config()
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if any(window and (longest is None or longest > window) for window in windows):
        return False
    ids = probe_ids(model, sum(LENGTHS))
    positions = torch.cat([torch.arange(length, device=ids.device) for length in LENGTHS])
    before = _hidden(model, ids, positions)
    base.set_attn_implementation(NAME)
    try:
        same = difference(_hidden(model, ids, positions), before) <= rounding(model)
    except torch.OutOfMemoryError:  # the plain way takes more
        raise
    except (RuntimeError, TypeError, ValueError):
        same = False
    if not same:
        base.set_attn_implementation(REPLACED)
    return same


def branches(model: nn.Module) -> bool:
    """Tell whether a model that attends by document computes a branch as it would the whole document."""
    base: Any = base_of(model)
    if getattr(base.config, "_attn_implementation", None) != NAME:
        return False
    ids = probe_ids(model, sum(LENGTHS))
    shared, chosen, rejected, _ = ids.split(LENGTHS)
    whole = torch.arange(len(shared) + len(rejected), device=ids.device)
    alone = _hidden(model, torch.cat([shared, rejected]), whole)[len(shared) :]
    places = torch.cat([torch.arange(len(shared) + len(chosen), device=ids.device), whole[len(shared) :]])
    branch = _hidden(model, torch.cat([shared, chosen, rejected]), places)[-len(rejected) :]
    return difference(branch, alone) <= rounding(model)


def _hidden(model: nn.Module, ids: Tensor, positions: Tensor) -> Tensor:
    """Return the last hidden states (T, H) f32 of packed documents."""
    with evaluating(model):
        output = body_of(model)(input_ids=ids[None], position_ids=positions[None], use_cache=False)
    hidden: Tensor = output[0][0].float()
    return hidden
