"""``--new_special_tokens``: extend the vocabulary, and the embeddings with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from martlet import UsageError

from .source import expand


def read(entries: Sequence[str]) -> list[str]:
    """Return the tokens that ``--new_special_tokens`` names, in order, without repetition."""
    found: list[str] = []
    for entry in entries:
        if not entry.endswith(".txt"):
            found.append(entry)
            continue
        try:
            lines = expand(entry).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--new_special_tokens {entry}: cannot be read as UTF-8 text ({error}).") from error
        found += [line.strip() for line in lines if line.strip()]
    if any(not token.strip() for token in found):
        raise UsageError("--new_special_tokens: an empty token; leave it out.")
    return list(dict.fromkeys(found))


def extend_tokenizer(tokenizer: Any, tokens: Sequence[str]) -> int:
    """Add special tokens to a tokenizer; return how many were new to its vocabulary."""
    if not tokens:
        return 0
    added: int = tokenizer.add_special_tokens(
        {"extra_special_tokens": list(tokens)}, replace_extra_special_tokens=False
    )
    return added


def extend_model(model: Any, tokenizer: Any) -> bool:
    """Give every id of the tokenizer an embedding; return whether rows were added.

    A new row is the mean of the old ones, in the input and in the output embeddings, so that loading twice gives the
    same model and the distribution over old tokens hardly moves.
    """
    import torch

    old, wanted = model.get_input_embeddings().num_embeddings, len(tokenizer)
    if wanted <= old:
        return False
    model.resize_token_embeddings(wanted, mean_resizing=False)
    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    with torch.no_grad():
        for weight in {id(layer.weight): layer.weight for layer in layers}.values():
            weight[old:] = weight[:old].float().mean(dim=0).to(weight.dtype)
    model.embeddings_resized = True
    return True
